mod admin;
mod golden;
