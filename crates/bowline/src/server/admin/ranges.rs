//! Conditions and ranges of requests for files, as RFC 9110 has them.

use axum::http::{HeaderMap, HeaderName, header};

use super::Refusal;

/// Which part of a file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// From a byte on, so many.
    Bytes { from: u64, length: u64 },
    /// None that is there.
    Nothing,
}

/// The part of a file of this size and tag that a request is for. What is no single range of bytes means
/// the whole file.
pub(super) fn part(headers: &HeaderMap, size: u64, tag: &str) -> Part {
    let condition = headers.get(header::IF_RANGE);
    if condition.is_some_and(|one| one.as_bytes() != quoted(tag).as_bytes()) {
        return Part::Whole;
    }
    let mut given = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (given.next(), given.next()) else {
        return Part::Whole;
    };
    let range = range
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
        return Part::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Part::Whole,
        (Some(first), _) if first >= size => Part::Nothing,
        (Some(first), Some(last)) => Part::Bytes {
            from: first,
            length: last.min(size - 1) - first + 1,
        },
        (Some(first), None) if last.is_empty() => Part::Bytes {
            from: first,
            length: size - first,
        },
        (None, Some(0)) if first.is_empty() => Part::Nothing,
        (None, Some(_)) if first.is_empty() && size == 0 => Part::Nothing,
        (None, Some(count)) if first.is_empty() => {
            let length = count.min(size);
            Part::Bytes {
                from: size - length,
                length,
            }
        }
        (Some(_) | None, Some(_) | None) => Part::Whole,
    }
}

/// A tag as a header has it.
pub(super) fn quoted(tag: &str) -> String {
    format!("\"{tag}\"")
}

/// The tags that a header lists, without their quotes; `*` stands for any.
pub(super) fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Vec<String>>, Refusal> {
    let mut tags = Vec::new();
    // An empty one says nothing.
    let given = headers.get_all(name).iter();
    for value in given.filter(|value| !value.as_bytes().trim_ascii().is_empty()) {
        let listed = value.to_str().ok().and_then(listed);
        let Some(listed) = listed else {
            let what = format!("`{name}` lists tags in double quotes, or is `*`");
            return Err(Refusal::InvalidRequest(what));
        };
        tags.extend(listed);
    }
    Ok((!tags.is_empty()).then_some(tags))
}

/// The tags of one header, between commas; a tag may hold commas itself.
fn listed(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim();
    if rest == "*" {
        return Some(vec![rest.to_owned()]);
    }
    let mut tags = Vec::new();
    loop {
        let quoted = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let (tag, behind) = quoted.split_once('"')?;
        tags.push(tag.to_owned());
        rest = behind.trim_start();
        if rest.is_empty() {
            return Some(tags);
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}
