

mod admin;
