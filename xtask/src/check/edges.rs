//! The crates depend on each other as drawn in ARCHITECTURE.md, and on nothing beside it.

use crate::finding::Finding;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What each crate may name of ours. The development crate `bowline-testkit` is not in this table:
/// it may name every crate, and every crate may name it for development.
const EDGES: &[(&str, &[&str])] = &[
    ("bowline-store", &[]),
    ("bowline-model", &[]),
    ("bowline-runtime", &["bowline-store"]),
    ("bowline-sandbox", &["bowline-store"]),
    (
        "bowline-agent",
        &[
            "bowline-runtime",
            "bowline-model",
            "bowline-sandbox",
            "bowline-store",
        ],
    ),
    (
        "bowline",
        &[
            "bowline-agent",
            "bowline-runtime",
            "bowline-model",
            "bowline-sandbox",
            "bowline-store",
        ],
    ),
    ("bowline-embed", &["bowline-runtime", "bowline-store"]),
    ("bowline-embed-axum", &["bowline"]),
    ("xtask", &[]),
];

const TESTKIT: &str = "bowline-testkit";

/// Libraries that one crate hides from all others (the end `*` stands for anything).
const ONLY_IN: &[(&str, &[&str])] = &[
    ("rusqlite", &["bowline-store"]),
    ("tokio-postgres", &["bowline-store"]),
    ("bashkit", &["bowline-sandbox"]),
    // `cargo xtask guest` boots the image that the sandbox holds.
    ("wasmtime*", &["bowline-sandbox", "xtask"]),
    ("oxc*", &["bowline-sandbox"]),
    ("bollard", &["bowline-sandbox"]),
    ("grep-*", &["bowline-sandbox"]),
    ("rmcp", &["bowline-agent"]),
    ("jsonschema", &["bowline-agent"]),
    ("axum", &["bowline", "bowline-embed-axum", TESTKIT]),
    ("clap", &["bowline"]),
    ("opentelemetry*", &["bowline"]),
];

/// A package of the workspace, as far as the rules need it.
#[derive(Debug)]
pub(crate) struct Package {
    name: String,
    dependencies: Vec<Dependency>,
    /// The features that switch on the optional testkit.
    testkit_features: Vec<String>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    dev: bool,
    optional: bool,
}

/// The packages of the workspace, from `cargo metadata`, without network.
pub(crate) fn packages(root: &Path) -> Result<Vec<Package>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cannot run cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    let metadata =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    Ok(parse(&metadata))
}

fn parse(metadata: &Value) -> Vec<Package> {
    list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: text(&package["name"]),
            dependencies: list(&package["dependencies"])
                .iter()
                .map(|dependency| Dependency {
                    name: text(&dependency["name"]),
                    dev: dependency["kind"] == "dev",
                    optional: dependency["optional"] == true,
                })
                .collect(),
            testkit_features: features_naming(&package["features"], TESTKIT),
        })
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn features_naming(features: &Value, dependency: &str) -> Vec<String> {
    let Some(features) = features.as_object() else {
        return Vec::new();
    };
    features
        .iter()
        .filter(|(_, parts)| {
            list(parts).iter().filter_map(Value::as_str).any(|part| {
                part.strip_prefix("dep:")
                    .unwrap_or(part)
                    .split(['/', '?'])
                    .next()
                    == Some(dependency)
            })
        })
        .map(|(name, _)| name.clone())
        .collect()
}

pub(crate) fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        for dependency in &package.dependencies {
            if let Some(finding) = edge(package, dependency, packages) {
                findings.push(finding);
            }
            if let Some(finding) = hidden(package, dependency) {
                findings.push(finding);
            }
        }
        if package.name != TESTKIT && !EDGES.iter().any(|(name, _)| *name == package.name) {
            findings.push(Finding::new(
                &package.name,
                "a crate that the layout does not know",
                "put the code into one of the crates in ARCHITECTURE.md, or change the layout there and in xtask/src/check/edges.rs",
            ));
        }
    }
    findings
}

fn edge(package: &Package, dependency: &Dependency, packages: &[Package]) -> Option<Finding> {
    let ours = packages.iter().any(|p| p.name == dependency.name);
    if !ours || package.name == TESTKIT {
        return None;
    }
    let allowed = if dependency.name == TESTKIT {
        dependency.dev
            || (package.name == "bowline"
                && dependency.optional
                && package.testkit_features == ["bench"])
    } else {
        EDGES
            .iter()
            .any(|(name, to)| *name == package.name && to.contains(&dependency.name.as_str()))
    };
    (!allowed).then(|| {
        Finding::new(
            &package.name,
            format!("depends on {}, which the layout does not allow", dependency.name),
            if dependency.name == TESTKIT {
                "make it a dev-dependency (or, in bowline, optional under the feature `bench` alone)"
            } else {
                "take a value or a trait instead; the crate above passes it in"
            },
        )
    })
}

fn hidden(package: &Package, dependency: &Dependency) -> Option<Finding> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => dependency.name.starts_with(start),
        None => dependency.name == pattern,
    };
    let (_, homes) = ONLY_IN.iter().find(|(pattern, _)| matches(pattern))?;
    (!homes.contains(&package.name.as_str())).then(|| {
        Finding::new(
            &package.name,
            format!(
                "depends on {}, which belongs to {} alone",
                dependency.name,
                homes.join(" and ")
            ),
            format!("use what {} offers, or add it there", homes[0]),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace(dependent: &str, dependencies: &Value, features: &Value) -> Vec<Package> {
        let mut all: Vec<Value> = EDGES
            .iter()
            .map(|(name, _)| *name)
            .chain([TESTKIT])
            .filter(|name| *name != dependent)
            .map(|name| json!({"name": name, "dependencies": [], "features": {}}))
            .collect();
        all.push(json!({"name": dependent, "dependencies": dependencies, "features": features}));
        parse(&json!({"packages": all}))
    }

    fn on(name: &str, kind: Option<&str>, optional: bool) -> Value {
        json!({"name": name, "kind": kind, "optional": optional})
    }

    #[test]
    fn the_drawn_edges_and_libraries_are_allowed() {
        let packages = workspace(
            "bowline-agent",
            &json!([
                on("bowline-store", None, false),
                on("bowline-testkit", Some("dev"), false),
                on("serde", None, false),
                on("jsonschema", None, false)
            ]),
            &json!({}),
        );
        assert_eq!(check(&packages), []);
    }

    #[test]
    fn an_edge_upward_is_reported_for_development_too() {
        for kind in [None, Some("dev")] {
            let packages = workspace(
                "bowline-store",
                &json!([on("bowline-runtime", kind, false)]),
                &json!({}),
            );
            assert_eq!(check(&packages).len(), 1);
        }
    }

    #[test]
    fn the_testkit_is_for_development_or_the_bench_feature() {
        let testkit = json!([on("bowline-testkit", None, true)]);
        let bench = json!({"bench": ["dep:bowline-testkit"]});
        assert_eq!(check(&workspace("bowline", &testkit, &bench)), []);
        let other = json!({"default": ["bowline-testkit/x"], "bench": ["dep:bowline-testkit"]});
        assert_eq!(check(&workspace("bowline", &testkit, &other)).len(), 1);
        assert_eq!(
            check(&workspace("bowline-agent", &testkit, &bench)).len(),
            1
        );
    }

    #[test]
    fn a_library_that_another_crate_hides_is_reported() {
        let packages = workspace(
            "bowline-model",
            &json!([on("grep-regex", None, false)]),
            &json!({}),
        );
        assert_eq!(check(&packages).len(), 1);
    }

    #[test]
    fn an_unknown_crate_is_reported() {
        assert_eq!(
            check(&workspace("bowline-extra", &json!([]), &json!({}))).len(),
            1
        );
    }
}
