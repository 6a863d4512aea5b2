//! The `kiln` command. All of it lives in the library; see [`kiln::cli`].

fn main() -> std::process::ExitCode {
    kiln::cli::main()
}
