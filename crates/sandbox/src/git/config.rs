//! `.git/config`.

use std::sync::Arc;

use super::{GitError, Repository};

/// The settings of a repository, as they stand in its file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    /// `section` or `section.subsection` that it stands in; all its lines share it.
    section: Arc<str>,
    /// Key and value; none for a header, a comment or an empty line.
    entry: Option<(String, String)>,
    text: String,
}

/// A key, as `section[.subsection].name`: section and name in lowercase.
fn normal(key: &str) -> Option<(String, String)> {
    let (section, name) = key.rsplit_once('.')?;
    let section = match section.split_once('.') {
        Some((section, sub)) => format!("{}.{sub}", section.to_ascii_lowercase()),
        None => section.to_ascii_lowercase(),
    };
    Some((section, name.to_ascii_lowercase()))
}

impl Config {
    pub(crate) fn parse(text: &str) -> Self {
        let mut lines = Vec::new();
        let mut section: Arc<str> = Arc::from("");
        for text in text.lines() {
            let line = text.trim();
            let mut entry = None;
            if let Some(head) = line
                .strip_prefix('[')
                .and_then(|rest| rest.split(']').next())
            {
                let head = match head.split_once(char::is_whitespace) {
                    Some((name, sub)) => {
                        let sub = sub
                            .trim()
                            .trim_matches('"')
                            .replace("\\\"", "\"")
                            .replace("\\\\", "\\");
                        format!("{}.{sub}", name.to_ascii_lowercase())
                    }
                    None => head.to_ascii_lowercase(),
                };
                section = Arc::from(head);
            } else if !line.is_empty() && !line.starts_with(['#', ';']) {
                let (key, value) = line.split_once('=').unwrap_or((line, "true"));
                entry = Some((key.trim().to_ascii_lowercase(), unquote(value.trim())));
            }
            lines.push(Line {
                section: section.clone(),
                entry,
                text: text.to_owned(),
            });
        }
        Self { lines }
    }

    /// The last value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let (section, name) = normal(key)?;
        self.lines.iter().rev().find_map(|line| match &line.entry {
            Some((key, value)) if *line.section == *section && *key == name => Some(value.as_str()),
            _ => None,
        })
    }

    /// All keys and values, as `git config --list` prints them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (String, &str)> {
        self.lines.iter().filter_map(|line| {
            let (key, value) = line.entry.as_ref()?;
            Some((format!("{}.{key}", line.section), value.as_str()))
        })
    }

    /// Names of the sections `kind`, such as the remotes.
    pub(crate) fn subsections(&self, kind: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .lines
            .iter()
            .filter_map(|line| line.section.strip_prefix(kind)?.strip_prefix('.'))
            .map(str::to_owned)
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Sets a key, adding its section when there is none.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), GitError> {
        let invalid = || GitError::Refused(format!("error: invalid key: {key}"));
        let (section, name) = normal(key).ok_or_else(invalid)?;
        let plain = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        let kind = section.split('.').next().unwrap_or_default();
        if !plain(&name)
            || !plain(kind)
            || section.contains(['\n', '\0'])
            || value.contains(['\n', '\0'])
        {
            return Err(invalid());
        }
        let line = Line {
            text: format!("\t{name} = {}", quote(value)),
            entry: Some((name.clone(), value.to_owned())),
            section: Arc::from(section.as_str()),
        };
        let same = |line: &Line| {
            *line.section == *section && line.entry.as_ref().is_some_and(|(key, _)| *key == name)
        };
        if let Some(at) = self.lines.iter().rposition(same) {
            self.lines[at] = line;
        } else if let Some(at) = self
            .lines
            .iter()
            .rposition(|line| *line.section == *section)
        {
            self.lines.insert(at + 1, line);
        } else {
            let text = match section.split_once('.') {
                Some((kind, sub)) => format!(
                    "[{kind} \"{}\"]",
                    sub.replace('\\', "\\\\").replace('"', "\\\"")
                ),
                None => format!("[{section}]"),
            };
            self.lines.push(Line {
                section: Arc::from(section),
                entry: None,
                text,
            });
            self.lines.push(line);
        }
        Ok(())
    }

    /// Removes a key; whether it was there.
    pub(crate) fn unset(&mut self, key: &str) -> bool {
        let Some((section, name)) = normal(key) else {
            return false;
        };
        let before = self.lines.len();
        self.lines.retain(|line| {
            *line.section != *section || line.entry.as_ref().is_none_or(|(key, _)| *key != name)
        });
        before != self.lines.len()
    }

    /// Removes a section.
    pub(crate) fn remove_section(&mut self, section: &str) {
        self.lines.retain(|line| *line.section != *section);
    }

    pub(crate) fn render(&self) -> String {
        self.lines
            .iter()
            .map(|line| format!("{}\n", line.text))
            .collect()
    }
}

fn quote(value: &str) -> String {
    if value.contains(['"', '\\', '#', ';']) || value.trim() != value {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        value.to_owned()
    }
}

fn unquote(value: &str) -> String {
    let mut out = String::new();
    let (mut inside, mut chars) = (false, value.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => inside = !inside,
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            '#' | ';' if !inside => break,
            c => out.push(c),
        }
    }
    if inside || value.contains('"') {
        out
    } else {
        out.trim_end().to_owned()
    }
}

impl Repository {
    pub(crate) async fn config(&self) -> Result<Config, GitError> {
        let text = self.read_control("config").await?;
        Ok(text.map_or_else(Config::default, |text| {
            Config::parse(&String::from_utf8_lossy(&text))
        }))
    }

    pub(crate) async fn set_config(&self, config: &Config) -> Result<(), GitError> {
        self.write_control("config", config.render()).await
    }
}
