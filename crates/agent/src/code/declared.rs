//! Everything that code sees, as TypeScript declarations for an editor.

use super::Registry;
use crate::binding::declare::declarations;

/// What code finds out by itself, in code mode.
const CODEMODE: &str = "/** What there is, and code that people promoted. */
declare const codemode: {
  /** Finds methods and snippets by words. */
  search(query: string): Promise<{
    results: { path: string; connector: string; method: string; description: string; kind: string }[];
    total: number;
    truncated: boolean;
  }>;
  /** The declarations of a namespace or a method, such as `state` or `state.readFile`. */
  describe(target: string): Promise<{ path: string; types: string; kind?: string; description?: string }>;
  /** Runs a snippet. */
  run(name: string, input?: unknown): Promise<unknown>;
  /** Runs a function; the name is for readers. */
  step<T>(name: string, body: () => T | Promise<T>): Promise<T>;
};
";

/// What a durable tool has besides.
const STEP: &str = "/** For durable tools. */
declare const step: {
  /** Runs a function; the name is for readers. */
  do<T>(name: string, body: () => T | Promise<T>): Promise<T>;
};
";

/// The declarations of a registry, of `codemode` and of `step`.
pub(crate) fn all(registry: &Registry, codemode: bool, step: bool) -> String {
    let mut parts: Vec<String> = registry
        .bindings()
        .iter()
        .map(|binding| declarations(&**binding))
        .collect();
    if codemode {
        parts.push(CODEMODE.to_owned());
    }
    if step {
        parts.push(STEP.to_owned());
    }
    parts.join("\n")
}
