mod admin;
mod golden;
mod proxy;
