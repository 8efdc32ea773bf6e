//! Lists of processors and memory nodes, `0-3,7`: cpuset(7), "List format".

use crate::error::{Error, Result};

/// More than the kernel has of either.
const MOST: u32 = 1 << 16;

/// The numbers of a list, in the order written. `what` names the property for the error.
pub(crate) fn parse(what: &'static str, text: &str) -> Result<Vec<u32>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < MOST);
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(first..=last)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(|part| range(part.trim())).collect();
    let refuse = || {
        let reason = "not a list of numbers and ranges, as 0-3,7".to_owned();
        Error::Configuration { what, value: text.to_owned(), reason }
    };
    Ok(ranges.ok_or_else(refuse)?.into_iter().flatten().collect())
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
    }

    #[test]
    fn what_is_no_list_is_refused_by_name() {
        for text in ["", ",", "a", "3-1", "-1", "1-", "1-2-3", "99999999999"] {
            let told = parse("linux.memoryPolicy.nodes", text).unwrap_err().to_string();
            assert!(told.starts_with(&format!("linux.memoryPolicy.nodes {text:?}: ")), "{told}");
        }
    }
}
