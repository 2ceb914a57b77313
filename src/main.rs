use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // a page of 2 MB for each of the allocator's many small heaps would hold several times what they do; where the system
    // refuses, memory is all that it costs
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    troop::cli::run()
}
