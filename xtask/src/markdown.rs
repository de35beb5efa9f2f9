//! Links in Markdown files that lead nowhere.

/// The links to files that `exists` does not find, each with its line, counted from 1.
///
/// Addresses on the web, and places within a page, are not looked at; nor is what stands in code.
pub(crate) fn broken_links(text: &str, exists: impl Fn(&str) -> bool) -> Vec<(usize, String)> {
    let mut broken = vec![];
    let mut in_code = false;
    for (k, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in targets(line) {
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = file.is_empty() || file.contains("://") || file.starts_with("mailto:");
            if !elsewhere && !exists(file) {
                broken.push((k + 1, file.to_owned()));
            }
        }
    }
    broken
}

/// What stands between `](` and `)`, outside of `code`, and the targets of `[name]: target` lines.
fn targets(line: &str) -> Vec<&str> {
    let definition = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
    let outside = line.split('`').step_by(2);
    // A link's text may be code: `](` then opens the part behind it.
    let linked = outside.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let first_word = |target| str::split_whitespace(target).next();
    definition.into_iter().chain(linked).filter_map(first_word).collect()
}

#[cfg(test)]
mod tests {
    use super::broken_links;

    #[track_caller]
    fn check(text: &str, want: &[(usize, &str)]) {
        let found = broken_links(text, |target| target == "here.md");
        assert_eq!(found.iter().map(|(line, target)| (*line, target.as_str())).collect::<Vec<_>>(), want);
    }

    #[test]
    fn only_files_that_are_missing_count() {
        check("[a](here.md) and [b](here.md#part), [c](https://example.org/x.md), [d](#part)", &[]);
        check("x\n[a](gone.md) ![p](gone.png \"title\")", &[(2, "gone.md"), (2, "gone.png")]);
        check("[`code`](gone.md), `[not](a link)`", &[(1, "gone.md")]);
        check("```\n[a](gone.md)\n```\n[name]: gone.md", &[(4, "gone.md")]);
    }
}
