fn main() {
    let sources = troop::settings::Sources::of_process(None, Default::default());
    let settings = troop::settings::Settings::load(&sources).expect("settings");
    troop::node::run(settings, || {}).expect("runs");
}
