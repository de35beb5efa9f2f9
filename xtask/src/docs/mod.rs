//! `cargo xtask docs`: the documents, the reference and the executed notebooks as a folder of static pages.
//!
//! `rustdoc` turns Markdown files into HTML by itself, in some 40 ms a page, so this needs no crate and no other program. Files keep their
//! places, so that links between documents stay valid: only `.md` becomes `.html`.

mod links;
mod notebook;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::gallery;
use crate::workspace::{Workspace, call};

/// The documents, and what the navigation calls them.
const PAGES: [(&str, &str); 7] = [
    ("README.md", "Topolab"),
    ("notebooks/README.md", "Notebooks"),
    ("ARCHITECTURE.md", "Architecture"),
    ("pipeline/FORMAT.md", "Store format"),
    ("BENCHMARKS.md", "Benchmarks"),
    ("CONTRIBUTING.md", "Contributing"),
    ("CHANGELOG.md", "Changelog"),
];

/// Where the reference begins.
const REFERENCE: [(&str, &str); 3] =
    [("api/lab/index.html", "lab"), ("api/pipeline/index.html", "pipeline"), ("api/datasets/index.html", "datasets")];

/// Files that are published as they are.
const FILES: [&str; 1] = ["pipeline/ticket.schema.json"];

const STYLE: &str = include_str!("style.css");

/// Builds `site` in the target folder, and checks the links of its pages.
///
/// # Errors
/// When the reference does not build, a document is not to be read, or a link leads nowhere.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    call(workspace.cargo(&["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    let site = Site { root: workspace.root.clone(), folder: workspace.target.join("site"), work: workspace.target.join("site-sources") };
    for folder in [&site.folder, &site.work] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
    }
    gallery::copy_folder(&workspace.target.join("doc"), &site.folder.join("api"))?;
    site.write("style.css", STYLE)?;
    for file in FILES {
        site.copy(file)?;
    }

    let shown = site.notebooks(&gallery::folder(workspace))?;
    let mut pages = BTreeSet::new();
    for (source, _) in PAGES {
        let text = fs::read_to_string(site.root.join(source)).with_context(|| format!("read {source}"))?;
        pages.insert(site.page(source, &text, &[], &shown)?);
    }
    for name in &shown {
        let source = format!("notebooks/{name}.md");
        let notebook = gallery::read(&gallery::folder(workspace).join(format!("{name}.ipynb")))?;
        let (text, outputs) = notebook::markdown(&notebook);
        pages.insert(site.page(&source, &text, &outputs, &shown)?);
    }

    let broken = site.broken(&pages)?;
    if !broken.is_empty() {
        bail!("links that lead nowhere:\n{}", broken.join("\n"));
    }
    println!("{} pages in {}", pages.len(), site.folder.display());
    Ok(())
}

/// The folder that is made.
struct Site {
    root: PathBuf,
    folder: PathBuf,
    /// For what rustdoc reads.
    work: PathBuf,
}

impl Site {
    /// Makes the page of one document; its place below the site.
    ///
    /// `source` is where the document lies, or would lie, below the root; `outputs[k]` takes the place of the mark of output `k`.
    fn page(&self, source: &str, text: &str, outputs: &[String], shown: &[String]) -> Result<String> {
        let page = links::page(source);
        let up = "../".repeat(page.matches('/').count());
        // rustdoc names a page after its source.
        let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
        let input = self.work.join(page.replace(".html", ".md"));
        let navigation = self.work.join(&page).with_extension("nav");
        let made = self.folder.join(folder);
        for folder in [&made, &self.work.join(folder)] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        fs::write(&input, text).with_context(|| format!("write {}", input.display()))?;
        fs::write(&navigation, bar(&up, shown)).with_context(|| format!("write {}", navigation.display()))?;
        let mut rustdoc = Command::new(std::env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into()));
        rustdoc.arg(&input).args(["--edition=2024", "--markdown-no-toc", "--markdown-css"]).arg(format!("{up}style.css"));
        call(rustdoc.arg("--html-before-content").arg(&navigation).arg("-o").arg(&made).current_dir(&self.root))?;

        let path = self.folder.join(&page);
        let html = fs::read_to_string(&path).with_context(|| format!("{source}: rustdoc wrote no {page}"))?;
        let html = links::map(&html, |target| links::moved(source, target));
        for target in links::targets(&html).filter(|target| links::is_local(target)) {
            let file = links::resolve(&page, target.split('#').next().unwrap_or_default());
            if !file.is_empty() && !self.folder.join(&file).exists() && self.root.join(&file).is_file() {
                self.copy(&file)?;
            }
        }
        let html = outputs.iter().enumerate().fold(html, |html, (k, output)| html.replace(&notebook::mark(k), output));
        self.write(&page, &html)?;
        Ok(page)
    }

    /// The names of the notebooks that have an executed copy.
    fn notebooks(&self, folder: &Path) -> Result<Vec<String>> {
        if !folder.is_dir() {
            return Ok(vec![]);
        }
        let mut names = vec![];
        for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".ipynb").map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Links of these pages to files, or to places in one of these pages, that are not there.
    fn broken(&self, pages: &BTreeSet<String>) -> Result<Vec<String>> {
        let mut broken = vec![];
        for page in pages {
            let html = self.read(page)?;
            for target in links::targets(&html).filter(|target| links::is_local(target)) {
                let (file, place) = target.split_once('#').unwrap_or((target, ""));
                let file = if file.is_empty() { page.clone() } else { links::resolve(page, file) };
                let found = self.folder.join(&file).is_file()
                    && (place.is_empty() || !pages.contains(&file) || self.read(&file)?.contains(&format!("id=\"{place}\"")));
                if !found {
                    broken.push(format!("{page}: {target}"));
                }
            }
        }
        Ok(broken)
    }

    fn read(&self, page: &str) -> Result<String> {
        fs::read_to_string(self.folder.join(page)).with_context(|| format!("read {page}"))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Copies a file of the repository to the same place.
    fn copy(&self, file: &str) -> Result<()> {
        let target = self.folder.join(file);
        let folder = target.parent().context("a file lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::copy(self.root.join(file), &target).with_context(|| format!("copy {file}"))?;
        Ok(())
    }
}

/// The links at the top of a page that lies below `up`.
fn bar(up: &str, shown: &[String]) -> String {
    let link = |target: &str, name: &str| format!("<a href=\"{up}{target}\">{name}</a>\n");
    let documents: String = PAGES.iter().map(|(source, name)| link(&links::page(source), name)).collect();
    let notebooks: String = shown.iter().map(|name| link(&format!("notebooks/{name}.html"), name)).collect();
    let reference: String = REFERENCE.iter().map(|(target, name)| link(target, &format!("<code>{name}</code>"))).collect();
    let schema: String = FILES.iter().map(|file| link(file, "ticket (JSON schema)")).collect();
    format!("<nav class=\"pages\">\n{documents}{notebooks}{reference}{schema}</nav>\n")
}
