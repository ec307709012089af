//! What many agents that run code at the same time take: rows of `bowline bench isolate`.
//!
//! They are in a process of their own, which finds the engine compiled, on a store on the disk. Each has a
//! message whose answer runs code twice, with a call each.

use std::path::Path;
use std::time::{Duration, Instant};

use bowline_agent::code::CodeOptions;
use bowline_runtime::Outcome;
use serde::{Deserialize, Serialize};

use super::child::{Child, say};
use super::isolate::{Figures, memory_kib};
use crate::{Agent, Bowline, Outgoing, Render, error::Error};

/// The name of the agent.
const AGENT: &str = "bench";
/// Its script, within the folder of the run.
const SCRIPT: &str = "agents.yaml";
/// The name of the folder of the compiled engine.
pub(super) const CACHE: &str = "isolate-cache";
const CODE: &str = "async () => { let n = 0; for (let i = 0; i < 1000; i++) n += i; \
    await tools.write({ path: 'a.txt', content: String(n) }); return n; }";

/// What the process says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Inside {
    /// Memory before the first message, and the most there was, in KiB.
    before: f64,
    peak: f64,
    /// Until the answer, in seconds, in ascending order.
    took: Vec<f64>,
}

/// Runs them, and adds the rows.
///
/// # Errors
///
/// When the process cannot be started, or an agent does not answer.
pub async fn agents(dir: &Path, many: usize, figures: &mut Figures) -> Result<(), Error> {
    if many == 0 {
        return Ok(());
    }
    let turn = serde_json::json!({"tools": [{"name": "code", "input": {"code": CODE}}]});
    let script = serde_json::json!({"turns": [turn, turn, {"text": "Done."}]});
    let unwritable = |error: std::io::Error| Error::failure("output_failed", error.to_string(), "");
    std::fs::write(dir.join(SCRIPT), script.to_string()).map_err(unwritable)?;
    let child = Child::start(dir, "isolate-agents", &many.to_string())?;
    let (child, line) = child.said("figures").await?;
    child.kill().await?;
    let inside: Inside = serde_json::from_str(&line)
        .map_err(|error| Error::failure("internal_error", error.to_string(), ""))?;
    let at = |part: usize| inside.took.get(many * part / 100).copied().unwrap_or(0.0);
    let last = inside.took.last().copied().unwrap_or(0.0);
    let what = format!("{many} agents at once, two runs of code each");
    figures.add(format!("{what}: most memory"), inside.peak / 1024.0, "MiB");
    let own = inside.before / 1024.0;
    figures.add("of that before the first message", own, "MiB");
    figures.add("until half of them have answered", at(50), "s");
    figures.add("until all have answered", last, "s");
    let ratio = last / at(50).max(1e-9);
    figures.add("the longest wait, of the middle one", ratio, "times");
    Ok(())
}

/// The process.
///
/// # Errors
///
/// When an agent does not answer.
pub(crate) async fn serve(dir: &Path, many: usize) -> Result<(), Error> {
    let folder = dir.to_path_buf();
    let agent = Agent::new(AGENT, move |cx: &mut Render| {
        cx.model(format!("scripted/{SCRIPT}"));
        cx.code();
        cx.definition().dir = Some(folder.clone());
        "Answer."
    });
    let agent = agent.map_err(|error| Error::failure("internal_error", error.to_string(), ""))?;
    let mut code = CodeOptions::default();
    code.isolates.cache = Some(dir.join(CACHE));
    let service = Bowline::open(dir.join("agents"))?
        .agent(agent)
        .code(code)
        .start();
    let before = memory_kib("VmHWM:");
    let began = Instant::now();
    let one = |id: usize| {
        let service = service.clone();
        tokio::spawn(async move {
            let go = Outgoing::user("Go.");
            let reply = service.ask(AGENT, &id.to_string(), go).await?;
            match reply.outcome {
                Outcome::Completed => Ok(began.elapsed().as_secs_f64()),
                Outcome::Failed | Outcome::Aborted => {
                    let what = format!("agent {id} did not answer: {:?}", reply.error);
                    Err(Error::failure("internal_error", what, ""))
                }
            }
        })
    };
    let mut took = Vec::with_capacity(many);
    for agent in (0..many).map(one).collect::<Vec<_>>() {
        let answered = agent.await;
        took.push(
            answered.map_err(|error| Error::failure("internal_error", error.to_string(), ""))??,
        );
    }
    took.sort_by(f64::total_cmp);
    let inside = Inside {
        before,
        peak: memory_kib("VmHWM:"),
        took,
    };
    let line = serde_json::to_string(&inside).unwrap_or_default();
    say(format_args!("figures {line}"));
    service.stop(Duration::from_secs(10)).await;
    std::future::pending().await
}
