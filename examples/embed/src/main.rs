//! Five slow steps that survive the process: kill it whenever you like and start it again. It goes on
//! after the last step that was stashed, and no finished step is done again.
#![allow(clippy::print_stdout)]

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bowline_runtime::fiber::{Fiber, Handler, Handlers, NewFiber, Stop};
use bowline_runtime::{Runtime, RuntimeOptions, Sources};
use bowline_store::{SqliteOptions, SqliteStore};
use serde_json::Value;

#[derive(Debug)]
struct Report;

#[async_trait]
impl Handler for Report {
    async fn run(&self, fiber: &mut Fiber<'_>) -> Result<Value, Stop> {
        let mut done: Vec<String> = fiber.stash_as().unwrap_or_default();
        while done.len() < 5 {
            // Something slow: here a pause.
            tokio::time::sleep(Duration::from_millis(300)).await;
            done.push(format!("{} in {}", done.len() + 1, std::process::id()));
            // When this returns, the step is on disk.
            fiber.set_stash(&done).await?;
            println!("step {}", done.len());
        }
        Ok(done.into())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).unwrap_or("embed-data".to_owned());
    let store = SqliteStore::open(Path::new(&dir), SqliteOptions::default())?;
    let report: Arc<dyn Handler> = Arc::new(Report);
    let handlers = Handlers::new([("report".to_owned(), report)]);
    let options = RuntimeOptions::default();
    let runtime = Runtime::new(store, Sources::system(), options, [handlers.program()]);

    // The same key never starts a second one: the first goes on, or its result is given again.
    let key = Some("today".to_owned());
    let new = NewFiber {
        key,
        ..NewFiber::default()
    };
    let result = handlers.on(&runtime).run("report", new).await?;
    println!("done {result}");
    runtime.drain(Duration::from_secs(5)).await;
    Ok(())
}
