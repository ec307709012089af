//! Where the line is drawn that says what goes on.

use std::io::{self, Write as _, stderr};

use indicatif::TermLike;

/// Columns that are left free: a terminal writes `^C` behind the line, and it must not wrap, since
/// then the line could not be found again to be taken away.
const FREE: u16 = 4;

/// Standard error, a little narrower than it is.
#[derive(Debug)]
pub(super) struct StatusLine;

impl StatusLine {
    fn write(text: std::fmt::Arguments<'_>) -> io::Result<()> {
        stderr().lock().write_fmt(text)
    }
}

impl TermLike for StatusLine {
    fn width(&self) -> u16 {
        let (columns, _) = termimad::terminal_size();
        columns.saturating_sub(FREE).max(1)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        if n == 0 {
            Ok(())
        } else {
            Self::write(format_args!("\x1b[{n}A"))
        }
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        if n == 0 {
            Ok(())
        } else {
            Self::write(format_args!("\x1b[{n}B"))
        }
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        if n == 0 {
            Ok(())
        } else {
            Self::write(format_args!("\x1b[{n}C"))
        }
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        if n == 0 {
            Ok(())
        } else {
            Self::write(format_args!("\x1b[{n}D"))
        }
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        Self::write(format_args!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        Self::write(format_args!("{text}"))
    }

    fn clear_line(&self) -> io::Result<()> {
        Self::write(format_args!("\r\x1b[2K"))
    }

    fn flush(&self) -> io::Result<()> {
        stderr().lock().flush()
    }
}
