//! Which subscriptions want a path: found by walking the path's segments, not by asking each one.

use std::collections::{HashMap, HashSet};

/// Names of subscriptions by the paths that they want.
#[derive(Debug, Default)]
pub(super) struct Index {
    explicit: HashMap<String, HashSet<String>>,
    patterns: Node,
}

#[derive(Debug, Default)]
struct Node {
    literal: HashMap<String, Node>,
    /// `*`: one segment.
    one: Option<Box<Node>>,
    /// `**`: any number of segments.
    any: Option<Box<Node>>,
    ends: HashSet<String>,
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.explicit.is_empty() && self.patterns.is_empty()
    }

    pub(super) fn add_pattern(&mut self, pattern: &str, id: &str) {
        let mut node = &mut self.patterns;
        for segment in pattern.split('/') {
            node = match segment {
                "*" => node.one.get_or_insert_default(),
                "**" => node.any.get_or_insert_default(),
                literal => node.literal.entry(literal.to_owned()).or_default(),
            };
        }
        node.ends.insert(id.to_owned());
    }

    pub(super) fn remove_pattern(&mut self, pattern: &str, id: &str) {
        let segments: Vec<_> = pattern.split('/').collect();
        self.patterns.remove(&segments, id);
    }

    pub(super) fn add_path(&mut self, path: &str, id: &str) {
        self.explicit
            .entry(path.to_owned())
            .or_default()
            .insert(id.to_owned());
    }

    pub(super) fn remove_path(&mut self, path: &str, id: &str) {
        if let Some(ids) = self.explicit.get_mut(path) {
            ids.remove(id);
            if ids.is_empty() {
                self.explicit.remove(path);
            }
        }
    }

    /// The subscriptions with a pattern that matches, and those that name the path.
    pub(super) fn find(&self, path: &str) -> HashSet<String> {
        let mut found = self.by_pattern(path);
        found.extend(self.explicit.get(path).into_iter().flatten().cloned());
        found
    }

    /// The subscriptions with a pattern that matches.
    pub(super) fn by_pattern(&self, path: &str) -> HashSet<String> {
        let mut found = HashSet::new();
        if !self.patterns.is_empty() {
            let segments: Vec<_> = path.split('/').collect();
            self.patterns.find(&segments, &mut found);
        }
        found
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.literal.is_empty() && self.one.is_none() && self.any.is_none()
    }

    fn find(&self, segments: &[&str], found: &mut HashSet<String>) {
        if let Some(any) = &self.any {
            for skip in 0..=segments.len() {
                any.find(segments.get(skip..).unwrap_or_default(), found);
            }
        }
        let Some((first, rest)) = segments.split_first() else {
            found.extend(self.ends.iter().cloned());
            return;
        };
        if let Some(node) = self.literal.get(*first) {
            node.find(rest, found);
        }
        if let Some(node) = &self.one {
            node.find(rest, found);
        }
    }

    fn remove(&mut self, segments: &[&str], id: &str) {
        let Some((first, rest)) = segments.split_first() else {
            self.ends.remove(id);
            return;
        };
        let slot = match *first {
            "*" => &mut self.one,
            "**" => &mut self.any,
            literal => {
                if let Some(node) = self.literal.get_mut(literal) {
                    node.remove(rest, id);
                    if node.is_empty() {
                        self.literal.remove(literal);
                    }
                }
                return;
            }
        };
        if let Some(node) = slot {
            node.remove(rest, id);
            if node.is_empty() {
                *slot = None;
            }
        }
    }
}

/// Most segments of a pattern, so that matching stays cheap.
const MAX_SEGMENTS: usize = 32;
/// Most `**` of a pattern: with more, matching would take long.
const MAX_ANY: usize = 4;

/// What is wrong with a pattern, if anything.
pub(super) fn check(pattern: &str) -> Option<String> {
    let segments: Vec<_> = pattern.split('/').collect();
    let any = segments.iter().filter(|segment| **segment == "**").count();
    if pattern.is_empty() || segments.len() > MAX_SEGMENTS || any > MAX_ANY {
        return Some(format!(
            "a pattern has 1 to {MAX_SEGMENTS} segments, at most {MAX_ANY} of them `**`"
        ));
    }
    let mixed = |segment: &&&str| segment.contains('*') && **segment != "*" && **segment != "**";
    segments
        .iter()
        .find(mixed)
        .map(|segment| format!("`{segment}` is not supported: `*` and `**` stand for segments"))
}
