//! Checks of the repository that no compiler makes: `cargo xtask check`.

mod check;
mod finding;
mod guest;
mod index;
mod source;
mod tree;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask check    verify the rules of the repository; one line for each problem
       cargo xtask index    rewrite the list of pages in docs/errors/README.md
       cargo xtask guest    build the isolates' guest from its sources, and its image from that
       cargo xtask guest --check
                            the same, and compare with the image in the repository
       cargo xtask help     this text
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => root().and_then(|root| check(&root)),
        ["index"] => root().and_then(|root| index::write(&root)),
        ["guest"] => root().and_then(|root| guest::write(&root)),
        ["guest", "--check"] => root().and_then(|root| guest::compare(&root)),
        ["help" | "-h" | "--help"] => {
            say(HELP);
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            complain(HELP);
            Ok(ExitCode::from(2))
        }
    };
    outcome.unwrap_or_else(|error| {
        complain(&format!("xtask: {error}\n"));
        ExitCode::FAILURE
    })
}

fn check(root: &Path) -> Result<ExitCode, String> {
    let findings = check::all(root)?;
    for finding in &findings {
        say(&format!("{finding}\n"));
    }
    if findings.is_empty() {
        complain(&format!(
            "xtask: {} checks, no problem found\n",
            check::COUNT
        ));
        return Ok(ExitCode::SUCCESS);
    }
    complain(&format!("xtask: {} problem(s)\n", findings.len()));
    Ok(ExitCode::FAILURE)
}

/// The repository: the nearest folder upward that holds `Cargo.lock`.
fn root() -> Result<PathBuf, String> {
    let start = match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::current_dir().map_err(|e| e.to_string())?,
    };
    start
        .ancestors()
        .find(|dir| dir.join("Cargo.lock").is_file())
        .map(Path::to_path_buf)
        .ok_or_else(|| "no Cargo.lock upward of here: run it inside the repository".to_owned())
}

// A closed pipe is the reader's wish, not a failure of ours.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
