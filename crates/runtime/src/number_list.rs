//! Lists of processors and memory nodes, `0-3,7`: cpuset(7), "List format".

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// More than the kernel has of either.
const MOST: u32 = 1 << 16;

/// Whether a text is such a list with at least one number.
pub(crate) fn is_list(text: &str) -> bool {
    ranges(text).is_some()
}

/// The numbers of a list, in the order written. `what` names the property for the error.
pub(crate) fn parse(what: &'static str, text: &str) -> Result<Vec<u32>> {
    let refuse = || {
        let reason = "not a list of numbers and ranges, as 0-3,7".to_owned();
        Error::Configuration { what, value: text.to_owned(), reason }
    };
    Ok(ranges(text).ok_or_else(refuse)?.into_iter().flatten().collect())
}

fn ranges(text: &str) -> Option<Vec<RangeInclusive<u32>>> {
    let number = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|number| is_number && *number < MOST)
    };
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(first..=last)
    };
    text.split(',').map(|part| range(part.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numbers_and_ranges() {
        let read = |text| parse("it", text).unwrap();
        assert_eq!(read("0"), [0]);
        assert_eq!(read("0-3, 7"), [0, 1, 2, 3, 7]);
        assert_eq!(read("5-5,1"), [5, 1]);
        assert!(is_list("0-1, 3") && is_list("1,1"));
    }

    #[test]
    fn what_is_no_list_is_refused_by_name() {
        for text in ["", ",", "a", "3-1", "-1", "1-", "1-2-3", "+1", "99999999999"] {
            let told = parse("linux.memoryPolicy.nodes", text).unwrap_err().to_string();
            assert!(!is_list(text), "{text}");
            assert!(told.starts_with(&format!("linux.memoryPolicy.nodes {text:?}: ")), "{told}");
        }
    }
}
