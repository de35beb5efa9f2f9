//! Figures hold the numbers of their tables, and are SVG that a browser reads.

use std::io::Write;
use std::sync::{Arc, Mutex};

use datasets::{Image, Seed};
use expect_test::{Expect, expect};
use lab::figure::picture_grid;
use lab::show::Progress;
use lab::{Figure, Table};

fn archived(set: &str) -> Table {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/nnmass/archived_runs.json")).unwrap();
    Table::from_rows(golden["sets"][set]["rows"].as_array().unwrap()).unwrap()
}

fn curves() -> Table {
    let row = |family: usize, epoch: usize| {
        let rate = 0.1 + 0.05 * family as f64;
        (["plain", "dense", "sparse"][family], epoch as i64, 0.95 - 0.6 * (-rate * epoch as f64).exp(), 0.02)
    };
    let rows: Vec<_> = (0..3).flat_map(|family| (0..30).map(move |epoch| row(family, epoch))).collect();
    Table::new([
        ("family", rows.iter().map(|row| row.0).collect::<Vec<_>>().into()),
        ("epoch", rows.iter().map(|row| row.1).collect::<Vec<_>>().into()),
        ("test_accuracy", rows.iter().map(|row| row.2).collect::<Vec<_>>().into()),
        ("test_accuracy_std", rows.iter().map(|row| row.3).collect::<Vec<_>>().into()),
    ])
    .unwrap()
}

#[track_caller]
fn check_data(figure: &Figure, want: Expect) {
    well_formed(&figure.svg());
    want.assert_eq(&figure.data().iter().map(|table| format!("{table}\n")).collect::<String>());
}

#[track_caller]
fn check_error<T: std::fmt::Debug>(result: lab::Result<T>, want: Expect) {
    want.assert_eq(&result.unwrap_err().to_string());
}

/// Every element that is opened is closed, in order, and no number is missing.
#[track_caller]
pub(crate) fn well_formed(svg: &str) {
    let mut open = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag ends");
        assert!(!text.contains('>'), "a bare > in {text:?}");
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(name), _) => assert_eq!(open.pop(), Some(name), "in {svg}"),
            (None, true) => {}
            (None, false) => open.push(tag.split(' ').next().unwrap()),
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}");
    }
    assert_eq!(open, [""; 0]);
    assert!(svg.starts_with("<svg width=\""), "{}", &svg[..60]);
    assert!(svg.contains("xmlns=\"http://www.w3.org/2000/svg\""));
}

#[test]
fn a_scatter_shows_its_rows_and_its_fit() {
    let runs = archived("mnist_accuracy");
    let figure = runs.scatter("nn_mass", "mean", None).unwrap().fit();
    check_data(
        &figure,
        expect![[r#"
        nn_mass   mean
          2.133  93.56
          17.07  94.60
          2.105  93.62
          6.316  94.38
          14.74  94.55
          16.84  94.68
          2.087  93.81
          16.70  94.69
          6.222  94.51
          2.065  93.86
          6.194  94.39
        11 rows
          slope  intercept      r2   n
        0.05748      93.76  0.7364  11
        1 row
    "#]],
    );
    check_data(
        &runs.scatter("nn_mass", "mean", Some("tc")).unwrap().errors("sd").unwrap().log_x().fit_interval(Seed(0)),
        expect![[r#"
        tc  nn_mass   mean      sd
         1    2.133  93.56  0.4212
         8    17.07  94.60  0.1763
         1    2.105  93.62  0.2341
         3    6.316  94.38  0.2564
         7    14.74  94.55  0.3467
         8    16.84  94.68  0.4153
         1    2.087  93.81  0.1491
         8    16.70  94.69  0.1367
         3    6.222  94.51  0.4105
         1    2.065  93.86  0.3317
         3    6.194  94.39  0.2309
        11 rows
         slope  intercept      r2  r2_low  r2_high   n
        0.4511      93.44  0.8936  0.8063   0.9653  11
        1 row
    "#]],
    );
    assert!(figure.svg().contains("R² = 0.736, slope"), "{}", figure.svg());
    let narrow = figure.clone().log_x().fit_interval(Seed(0)).size(400, 300);
    assert!(narrow.svg().contains("R² = 0.894 (95 %: 0.81 to 0.97), n = 11"), "the slope has no room: {}", narrow.svg());
    assert!(figure.svg().contains("NN-Mass"));
}

#[test]
fn rows_that_cannot_be_shown_are_counted() {
    let table = Table::new([
        ("x", vec![Some(0.0), Some(1.0), None, Some(100.0), Some(10.0)].into()),
        ("y", vec![1.0, 2.0, 3.0, 4.0, f64::NAN].into()),
    ])
    .unwrap();
    let figure = table.scatter("x", "y", None).unwrap().fit();
    assert_eq!(figure.data()[0].len(), 3);
    assert!(figure.svg().contains("2 of 5 rows not shown: a value is missing"));
    let figure = figure.log_x();
    assert_eq!(figure.data().len(), 1, "two points have no fit");
    assert!(figure.svg().contains("3 of 5 rows not shown: a value is missing, or x is not positive"));
    assert!(figure.svg().contains("no line fits"));
}

#[test]
fn figures_of_few_or_odd_numbers_are_drawn() {
    let figures = |xs: Vec<f64>, ys: Vec<f64>| {
        let names: Vec<String> = (0..xs.len()).map(|row| format!("row {row}")).collect();
        let table = Table::new([("x", xs.into()), ("y", ys.into()), ("name", names.into())]).unwrap();
        let scatter = table.scatter("x", "y", Some("name")).unwrap().fit_interval(Seed(1));
        let bars = table.bars("name", "y", Some("x")).unwrap();
        [scatter.clone(), scatter.log_x(), table.lines("x", "y", None).unwrap(), bars, table.heat_map("name", "x", "y").unwrap()]
    };
    let odd = [
        (vec![], vec![]),
        (vec![1.0], vec![2.0]),
        (vec![0.0, 0.0], vec![0.0, 0.0]),
        (vec![1e-12, 1e12, 5.0], vec![-1e9, 1e9, 0.0]),
        (vec![1.0, 1.0 + 1e-9, 1.0], vec![1e-9, 2e-9, f64::INFINITY]),
        (vec![f64::NAN, -1.0], vec![-3.0, -4.0]),
        ((0..40).map(f64::from).collect(), (0..40).map(|y| f64::from(y * y)).collect()),
    ];
    for (xs, ys) in odd {
        for figure in figures(xs, ys) {
            well_formed(&figure.svg());
            well_formed(&figure.size(1, 1).svg());
        }
    }
}

#[test]
fn lines_follow_x_and_bars_and_cells_are_one_a_row() {
    let last = curves().filter(|row| row.number("epoch") >= 28.0).unwrap();
    check_data(
        &last.lines("epoch", "test_accuracy", Some("family")).unwrap().errors("test_accuracy_std").unwrap(),
        expect![[r#"
        family  epoch  test_accuracy  test_accuracy_std
        plain      28         0.9135            0.02000
        plain      29         0.9170            0.02000
        dense      28         0.9410            0.02000
        dense      29         0.9423            0.02000
        sparse     28         0.9478            0.02000
        sparse     29         0.9482            0.02000
        6 rows
    "#]],
    );
    check_error(
        last.bars("family", "test_accuracy", None),
        expect!["bars of `family`: wanted one row a category, as `mean` gives them, found 6 rows of 3 categories"],
    );
    check_error(last.heat_map("family", "family", "test_accuracy"), expect!["column `family`: wanted each column once, found it twice"]);
    let means = last.mean(&["test_accuracy"], &["family"]).unwrap();
    check_data(
        &means.bars("family", "test_accuracy", Some("test_accuracy_std")).unwrap(),
        expect![[r#"
        family  test_accuracy  test_accuracy_std
        plain          0.9153           0.002455
        dense          0.9416          0.0008862
        sparse         0.9480          0.0002844
        3 rows
    "#]],
    );
    check_data(
        &last.heat_map("epoch", "family", "test_accuracy").unwrap(),
        expect![[r#"
        epoch  family  test_accuracy
           28  plain          0.9135
           29  plain          0.9170
           28  dense          0.9410
           29  dense          0.9423
           28  sparse         0.9478
           29  sparse         0.9482
        6 rows
    "#]],
    );
    assert_eq!(
        last.heat_map("epoch", "family", "test_accuracy").unwrap().to_string(),
        "Figure: heat map of Test accuracy over Epoch and Family"
    );
}

#[test]
fn a_figure_of_what_is_not_there_is_an_error() {
    let table = curves();
    check_error(
        table.scatter("epochs", "test_accuracy", None),
        expect!["column `epochs`: wanted one of family, epoch, test_accuracy, test_accuracy_std, found no such column"],
    );
    check_error(table.lines("epoch", "family", None), expect![[r#"column `family`: wanted numbers, found the text "plain""#]]);
    check_error(
        table.lines("epoch", "test_accuracy", None).unwrap().errors("std"),
        expect!["column `std`: wanted one of family, epoch, test_accuracy, test_accuracy_std, found no such column"],
    );
    check_error(Figure::row(&[]).errors("std"), expect!["errors `std`: wanted a figure of points or lines, found another one"]);
    check_error(Figure::row(&[]).save("figure.png"), expect!["figure.png: wanted a name that ends in .svg, found another"]);
    assert!(table.scatter("epoch", "epoch", None).is_err());
}

#[test]
fn text_from_tables_is_escaped() {
    let table = Table::new([("a<b", vec![1.0, 2.0].into()), ("y", vec![1.0, 2.0].into()), ("by", vec!["<i>", "\"&"].into())]).unwrap();
    let figure = table.scatter("a<b", "y", Some("by")).unwrap().title("x < y & z");
    let row = Figure::row(&[figure.clone(), figure]).title("<row>");
    well_formed(&row.svg());
    assert!(row.svg().contains("x &lt; y &amp; z") && row.svg().contains("&lt;row&gt;"));
}

#[test]
fn pictures_are_embedded_unchanged() {
    let grey = Image::new(2, 3, 1, vec![0, 50, 100, 150, 200, 250]);
    let colour = Image::new(1, 1, 3, vec![1, 2, 3]);
    let figure = picture_grid(&[grey.clone(), colour.clone()], &["grey", "one & only"]).unwrap().title("Two");
    check_data(
        &figure,
        expect![[r#"
        caption     height  width  channels
        grey             2      3         1
        one & only       1      1         3
        2 rows
    "#]],
    );
    use base64::Engine;
    let svg = figure.svg();
    let decoded: Vec<Image> = svg
        .split("data:image/png;base64,")
        .skip(1)
        .map(|rest| base64::engine::general_purpose::STANDARD.decode(rest.split('"').next().unwrap()).unwrap())
        .map(|png| image::load_from_memory(&png).unwrap())
        .map(|picture| {
            let channels = picture.color().channel_count() as usize;
            Image::new(picture.height() as usize, picture.width() as usize, channels, picture.into_bytes())
        })
        .collect();
    assert_eq!(decoded, [grey.clone(), colour]);
    assert!(svg.contains("image-rendering:pixelated"));
    well_formed(&picture_grid::<&str>(&[], &[]).unwrap().svg());
    check_error(picture_grid(&[grey], &["a", "b"]), expect!["captions: wanted none, or 1, found 2"]);
    check_error(picture_grid::<&str>(&[Image::new(1, 1, 2, vec![0, 0])], &[]), expect!["picture 0: wanted 1 or 3 channels, found 2"]);
}

#[test]
fn figures_stand_side_by_side() {
    let table = archived("mnist_accuracy");
    let panel = |x| table.scatter(x, "mean", None).unwrap().size(400, 300);
    let row = Figure::row(&[panel("nn_mass"), panel("params")]).title("Two panels");
    assert!(row.svg().starts_with("<svg width=\"800\" height=\"332\""), "{}", &row.svg()[..60]);
    assert_eq!(row.data().len(), 2);
    assert_eq!(row.to_string(), "Two panels: 2 figures");
    let folder = tempfile::tempdir().unwrap();
    row.save(folder.path().join("row.svg")).unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("row.svg")).unwrap(), row.svg());
    assert_eq!(Figure::from_svg("<svg width=\"9\"/>", 9, 9).svg(), "<svg width=\"9\"/>");
}

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn fast_work_is_two_lines_of_progress() {
    let page = Page::default();
    let mut progress = Progress::lines("train", 1000, page.clone());
    for step in 1..=1000 {
        progress.step(format!("loss {:.3}", 1.0 / f64::from(step)));
    }
    progress.finish("accuracy 0.947");
    let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    expect![[r#"
        train  ░░░░░░░░░░░░░░░░░░░░    0 %  loss 1.000  0 s, 0 s to go
        train  ████████████████████  100 %  accuracy 0.947  0 s
    "#]]
    .assert_eq(&text);
}

/// What an earlier run did is part of what is done, and of no time estimate.
#[test]
fn resumed_work_begins_where_it_was() {
    let page = Page::default();
    let mut progress = Progress::lines("train", 1000, page.clone()).behind(500);
    progress.set(500, "loss 1.000");
    progress.set(750, "loss 0.500");
    progress.finish("stopped");
    let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    expect![[r#"
        train  ██████████░░░░░░░░░░   50 %  loss 1.000  0 s
        train  ███████████████░░░░░   75 %  stopped  0 s, 0 s to go
    "#]]
    .assert_eq(&text);
}
