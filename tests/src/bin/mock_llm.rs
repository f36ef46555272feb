//! The mock LLM as a program: `mock-llm [--listen ADDRESS] [--threads N] [--keep N]`.

use std::net::SocketAddr;
use std::process::ExitCode;

const USAGE: &str = "usage: mock-llm [--listen 127.0.0.1:9190] [--threads 1] [--keep 256]";

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("mock-llm: {message}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), String> {
    let mut listen = SocketAddr::from(([127, 0, 0, 1], 9190));
    let mut threads = 1;
    let mut keep = 256;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value\n{USAGE}"))
        };
        match argument.as_str() {
            "--listen" => listen = value()?.parse().map_err(|error| format!("--listen: {error}"))?,
            "--threads" => threads = value()?.parse().map_err(|error| format!("--threads: {error}"))?,
            "--keep" => keep = value()?.parse().map_err(|error| format!("--keep: {error}"))?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    tollgate_tests::mock::run(listen, threads, keep).map_err(|error| format!("{listen}: {error}"))
}
