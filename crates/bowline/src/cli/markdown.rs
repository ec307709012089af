//! Markdown on a terminal, block by block as it streams.

use termimad::{
    Alignment, MadSkin,
    crossterm::style::{Attribute, Color},
};

use super::terminal::clean;

/// Widest lines of text, in columns; longer ones are hard to read.
const WIDEST: usize = 100;

/// Takes text as it streams and gives back whole blocks, rendered.
#[derive(Debug)]
pub(super) struct Markdown {
    skin: MadSkin,
    pending: String,
}

impl Markdown {
    pub(super) fn new(color: bool) -> Self {
        Self {
            skin: skin(color),
            pending: String::new(),
        }
    }

    /// Takes more text; returns the blocks that are complete now, which may be none.
    pub(super) fn feed(&mut self, text: &str) -> String {
        self.pending.push_str(text);
        let end = complete(&self.pending);
        let rest = self.pending.split_off(end);
        let blocks = std::mem::replace(&mut self.pending, rest);
        self.render(&blocks)
    }

    /// The rest, whether it is complete or not.
    pub(super) fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        self.render(&rest)
    }

    /// Renders a whole text, with an empty line after it; nothing when there is nothing in it.
    pub(super) fn render(&self, text: &str) -> String {
        let text = clean(text);
        let text = text.trim_matches('\n');
        if text.trim().is_empty() {
            return String::new();
        }
        let (columns, _) = termimad::terminal_size();
        let width = usize::from(columns).clamp(20, WIDEST);
        let rendered = self.skin.text(text, Some(width)).to_string();
        let lines: Vec<_> = rendered.lines().map(str::trim_end).collect();
        format!("{}\n\n", lines.join("\n"))
    }
}

fn skin(color: bool) -> MadSkin {
    let mut skin = MadSkin::no_style();
    if !color {
        return skin;
    }
    skin.bold.add_attr(Attribute::Bold);
    skin.italic.add_attr(Attribute::Italic);
    skin.strikeout.add_attr(Attribute::CrossedOut);
    skin.inline_code.set_fg(Color::Cyan);
    skin.code_block.set_fg(Color::Cyan);
    for header in &mut skin.headers {
        header.add_attr(Attribute::Bold);
        header.align = Alignment::Left;
    }
    if let Some(title) = skin.headers.first_mut() {
        title.add_attr(Attribute::Underlined);
    }
    skin
}

/// How many bytes of the text are whole blocks: up to the last empty line outside of a code fence.
fn complete(text: &str) -> usize {
    let (mut end, mut at) = (0, 0);
    let mut fence: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        at += line.len();
        if !line.ends_with('\n') {
            break;
        }
        let bare = line.trim();
        match fence {
            Some(mark) if bare.starts_with(mark) => {
                fence = None;
                end = at;
            }
            Some(_) => {}
            None if bare.starts_with("```") => fence = Some("```"),
            None if bare.starts_with("~~~") => fence = Some("~~~"),
            None if bare.is_empty() => end = at,
            None => {}
        }
    }
    end
}
