//! An executed notebook as Markdown, with marks where its outputs go.

use serde_json::Value;

use crate::gallery::text;

/// What stands for output `k` in the Markdown text, and so in the page that is made of it.
///
/// Outputs are put in afterwards, since HTML within Markdown ends at an empty line.
pub(super) fn mark(k: usize) -> String {
    format!("<div class=\"output\" id=\"output-{k}\"></div>")
}

/// The Markdown text of a notebook, and the HTML of the outputs of each cell that has some.
pub(super) fn markdown(notebook: &Value) -> (String, Vec<String>) {
    let (mut page, mut outputs) = (String::new(), vec![]);
    for cell in notebook["cells"].as_array().into_iter().flatten() {
        let source = text(&cell["source"]);
        if cell["cell_type"] != "code" {
            page += &format!("{source}\n\n");
            continue;
        }
        page += &format!("````rust\n{source}\n````\n\n");
        let shown: String = cell["outputs"].as_array().into_iter().flatten().map(html).collect();
        if !shown.is_empty() {
            let mark = mark(outputs.len());
            page += &format!("{mark}\n\n");
            outputs.push(mark.replace("></div>", &format!(">{shown}</div>")));
        }
    }
    (page, outputs)
}

/// One output, in the richest form that it has; HTML and SVG as they are, since they are our own program's.
fn html(output: &Value) -> String {
    if output["output_type"] == "stream" {
        return plain(&text(&output["text"]));
    }
    let data = &output["data"];
    for kind in ["text/html", "image/svg+xml"] {
        if !data[kind].is_null() {
            return text(&data[kind]);
        }
    }
    if !data["image/png"].is_null() {
        return format!("<img alt=\"\" src=\"data:image/png;base64,{}\"/>", text(&data["image/png"]).replace('\n', ""));
    }
    plain(&text(&data["text/plain"]))
}

fn plain(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if escaped.trim().is_empty() { String::new() } else { format!("<pre>{escaped}</pre>") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{mark, markdown};

    #[test]
    fn cells_become_text_code_and_marks() {
        let notebook = json!({"cells": [
            {"cell_type": "markdown", "source": ["# A\n", "b"]},
            {"cell_type": "code", "source": "let a = 1;", "outputs": []},
            {"cell_type": "code", "source": "a", "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["1 < 2\n"]},
                {"output_type": "execute_result", "data": {"text/plain": "no", "image/svg+xml": ["<svg>\n\n", "</svg>"]}},
            ]},
        ]});
        let (page, outputs) = markdown(&notebook);
        assert_eq!(page, format!("# A\nb\n\n````rust\nlet a = 1;\n````\n\n````rust\na\n````\n\n{}\n\n", mark(0)));
        assert_eq!(outputs, ["<div class=\"output\" id=\"output-0\"><pre>1 &lt; 2\n</pre><svg>\n\n</svg></div>"]);
    }
}
