mod admin;
mod durability;
mod golden;
mod proxy;
