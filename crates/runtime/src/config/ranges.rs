//! Lists of processors and memory nodes, `0-3,7`: cpuset(7), "List format".

/// Whether a text is such a list with at least one number.
pub fn is_list(text: &str) -> bool {
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u32>().ok(),
        false => None,
    };
    text.split(',').all(|part| match part.trim().split_once('-') {
        Some((first, last)) => {
            matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
        }
        None => number(part.trim()).is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_told_from_what_is_none() {
        for text in ["0", "0-3,7", "1,1", "0-0", "0-1, 3"] {
            assert!(is_list(text), "{text}");
        }
        for text in ["", ",", "a", "3-1", "-1", "1-", "1-2-3", "+1", "99999999999"] {
            assert!(!is_list(text), "{text}");
        }
    }
}
