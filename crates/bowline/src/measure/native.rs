//! The loops of `bowline bench isolate` in a native QuickJS, when there is one.

use std::path::Path;
use std::process::{Command, Stdio};

/// How often each loop runs; the median counts.
pub(super) const ROUNDS: usize = 9;

/// The median of each loop in milliseconds, process start and parsing of the file not counted.
///
/// # Errors
/// Why there is none, to be shown.
pub(super) fn kernels(
    dir: &Path,
    program: Option<&Path>,
    kernels: &[(&str, &str)],
) -> Result<Vec<f64>, String> {
    let program = program.unwrap_or(Path::new("qjs"));
    let no = |why: String| {
        format!(
            "no ratio to native QuickJS: {}: {why}; bench/isolate/run.sh installs one",
            program.display()
        )
    };
    let mut source = String::from("const medians = [];\n");
    for (_, kernel) in kernels {
        let text = serde_json::to_string(kernel).map_err(|error| no(error.to_string()))?;
        source.push_str(&format!(
            "{{ const times = []; for (let i = 0; i < {ROUNDS}; i++) {{ const run = new Function({text}); \
             const begin = Date.now(); run(); times.push(Date.now() - begin) }} \
             times.sort((a, b) => a - b); medians.push(times[{}]) }}\n",
            ROUNDS / 2
        ));
    }
    source.push_str("print(medians.join(' '))\n");
    let file = dir.join("kernels.js");
    std::fs::write(&file, source).map_err(|error| no(error.to_string()))?;
    let output = Command::new(program)
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| no(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let medians: Vec<f64> = text
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    if !output.status.success() || medians.len() != kernels.len() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().last().unwrap_or("it printed no figures");
        return Err(no(line.to_owned()));
    }
    Ok(medians)
}
