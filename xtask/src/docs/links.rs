//! Links of HTML pages: finding, resolving and rewriting them.

/// Attributes that hold a link.
const ATTRIBUTES: [&str; 2] = [" href=\"", " src=\""];

/// The page of a Markdown file, both below the root: `README.md` is the first page.
pub(super) fn page(source: &str) -> String {
    match source {
        "README.md" => "index.html".to_owned(),
        _ => source.strip_suffix(".md").map_or_else(|| source.to_owned(), |stem| format!("{stem}.html")),
    }
}

/// Where a link of the document `source` leads on the site: Markdown files are pages there, all others keep their places.
pub(super) fn moved(source: &str, target: &str) -> String {
    let (file, place) = target.split_once('#').map_or((target, String::new()), |(file, place)| (file, format!("#{place}")));
    if !is_local(target) || !file.ends_with(".md") {
        return target.to_owned();
    }
    let resolved = resolve(source, file);
    if resolved == "README.md" {
        return format!("{}index.html{place}", "../".repeat(source.matches('/').count()));
    }
    // Elsewhere a file called README.md is a page like any other.
    format!("{}.html{place}", file.trim_end_matches(".md"))
}

/// Whether a link leads to a file of the site, or a place in the page itself.
pub(super) fn is_local(target: &str) -> bool {
    !target.is_empty() && !target.contains("://") && !["mailto:", "data:", "javascript:"].iter().any(|scheme| target.starts_with(scheme))
}

/// The file that a relative link on `page` names, below the root; links that leave it stay at the root.
pub(super) fn resolve(page: &str, file: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The targets of all links.
pub(super) fn targets(html: &str) -> impl Iterator<Item = &str> {
    ATTRIBUTES
        .into_iter()
        .flat_map(move |attribute| html.split(attribute).skip(1))
        .filter_map(|rest| rest.split_once('"').map(|(target, _)| target))
}

/// The page with every link's target replaced.
pub(super) fn map(html: &str, to: impl Fn(&str) -> String) -> String {
    ATTRIBUTES.into_iter().fold(html.to_owned(), |html, attribute| {
        let mut parts = html.split(attribute);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| match part.split_once('"') {
            Some((target, rest)) => format!("{text}{attribute}{}\"{rest}", to(target)),
            None => format!("{text}{attribute}{part}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{map, moved, resolve, targets};

    #[test]
    fn links_to_documents_become_links_to_pages() {
        assert_eq!(moved("README.md", "notebooks/README.md"), "notebooks/README.html");
        assert_eq!(moved("README.md", "BENCHMARKS.md#loader"), "BENCHMARKS.html#loader");
        assert_eq!(moved("notebooks/README.md", "../README.md#x"), "../index.html#x");
        assert_eq!(moved("notebooks/README.md", "README.md"), "README.html");
        for kept in ["pipeline/examples/client.py", "https://example.org/a.md", "#part"] {
            assert_eq!(moved("README.md", kept), kept);
        }
    }

    #[test]
    fn relative_links_are_resolved() {
        assert_eq!(resolve("index.html", "a/b.html"), "a/b.html");
        assert_eq!(resolve("notebooks/README.html", "../a.svg"), "a.svg");
        assert_eq!(resolve("notebooks/README.html", "figures/./a.svg"), "notebooks/figures/a.svg");
    }

    #[test]
    fn all_links_are_found_and_replaced() {
        let html = r#"<a href="a.md">a</a><img src="b.svg" alt=""/> "c" <a href="d">"#;
        assert_eq!(targets(html).collect::<Vec<_>>(), ["a.md", "d", "b.svg"]);
        assert_eq!(map(html, |target| format!("x/{target}")), r#"<a href="x/a.md">a</a><img src="x/b.svg" alt=""/> "c" <a href="x/d">"#);
    }
}
