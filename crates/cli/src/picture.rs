//! Pictures made of letters: bars and trees, in plain ASCII where the terminal's language has no others.

/// Which letters there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// Those of Unicode.
    Unicode,
    /// The oldest ones.
    Ascii,
}

impl Letters {
    /// As the locale's variables say: locale(7).
    pub fn of_this_terminal() -> Self {
        Self::of_locale(|name| std::env::var(name).ok())
    }

    fn of_locale(variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| variable(name).filter(|text| !text.is_empty()));
        let given = given.unwrap_or_default().to_ascii_lowercase();
        if given.contains("utf-8") || given.contains("utf8") { Self::Unicode } else { Self::Ascii }
    }

    /// What stands before a branch, and before what is below it.
    pub fn fork(self, is_last: bool) -> (&'static str, &'static str) {
        match (self, is_last) {
            (Self::Unicode, false) => ("├─ ", "│  "),
            (Self::Unicode, true) => ("└─ ", "   "),
            (Self::Ascii, false) => ("|- ", "|  "),
            (Self::Ascii, true) => ("`- ", "   "),
        }
    }

    /// A bar of `width` letters, of which the first part is full and the second one hatched, both in proportion to `whole`. What is
    /// more than nothing has one letter at least.
    pub fn bar(self, full: u64, hatched: u64, whole: u64, width: usize) -> String {
        let (solid, shade, empty) = match self {
            Self::Unicode => ("█", "▒", "·"),
            Self::Ascii => ("#", "x", "."),
        };
        let letters = |bytes: u64| match (bytes, whole) {
            (0, _) | (_, 0) => 0,
            _ => ((bytes as u128 * width as u128 + whole as u128 / 2) / whole as u128).max(1) as usize,
        };
        let hatched = letters(hatched).min(width);
        let full = letters(full).min(width - hatched);
        [solid.repeat(full), shade.repeat(hatched), empty.repeat(width - full - hatched)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_and_of_one_width() {
        let bar = |full, hatched, whole| Letters::Ascii.bar(full, hatched, whole, 10);
        assert_eq!(bar(50, 25, 100), "#####xxx..");
        assert_eq!(bar(1, 0, 1_000_000), "#.........");
        assert_eq!(bar(0, 100, 100), "xxxxxxxxxx");
        assert_eq!(bar(100, 1, 100), "#########x");
        assert_eq!(bar(0, 0, 0), "..........");
        assert_eq!(Letters::Unicode.bar(u64::MAX, 0, u64::MAX, 3), "███");
    }

    #[test]
    fn the_locale_decides() {
        let of = |all: &str, lang: &str| {
            let value = |name: &str| match name {
                "LC_ALL" => Some(all.to_owned()),
                "LANG" => Some(lang.to_owned()),
                _ => None,
            };
            Letters::of_locale(value)
        };
        assert_eq!(of("", "en_US.UTF-8"), Letters::Unicode);
        assert_eq!(of("C", "en_US.UTF-8"), Letters::Ascii);
        assert_eq!(of("C.utf8", ""), Letters::Unicode);
        assert_eq!(of("", ""), Letters::Ascii);
    }
}
