//! Places for boxes and ways for edges: the layered drawing of Sugiyama, Tagawa & Toda (1981).
//!
//! Boxes are ranked by their longest path from the start; edges that pass ranks get a waypoint in each; ranks are sorted so that
//! few edges cross; then waypoints of an edge, and boxes that follow one another, are put in straight columns.

use std::collections::BTreeSet;

/// Distance between neighbours in a rank, and between ranks.
const GAP: f64 = 22.0;
pub(super) const RANK_GAP: f64 = 30.0;
/// Room that a waypoint takes.
const WAY: f64 = 8.0;

/// A drawing.
pub(super) struct Layout {
    /// Centre of each box.
    pub(super) centres: Vec<(f64, f64)>,
    /// Rank of each box.
    pub(super) ranks: Vec<usize>,
    /// Of each edge, the waypoints between its ends: x, upper y, lower y of the rank that it passes.
    pub(super) ways: Vec<Vec<(f64, f64, f64)>>,
    /// Width and height.
    pub(super) size: (f64, f64),
}

/// Places boxes of these sizes. An edge goes from an earlier box to a later one.
pub(super) fn layered(sizes: &[(f64, f64)], edges: &[(usize, usize)]) -> Layout {
    let mut ranks = vec![0; sizes.len()];
    edges.iter().for_each(|&(from, to)| ranks[to] = ranks[to].max(ranks[from] + 1));
    let mut net = Net::new(sizes, &ranks);
    let ways: Vec<Vec<usize>> = edges.iter().map(|&(from, to)| net.connect(from, to)).collect();
    net.sort_ranks();
    let x = net.columns();

    // Down the page, each rank as high as its highest box.
    let mut bands = Vec::new();
    let mut y = 0.0;
    for rank in &net.order {
        let height = rank.iter().filter_map(|&at| sizes.get(at)).map(|size| size.1).fold(0.0, f64::max);
        bands.push((y, y + height));
        y += height + RANK_GAP;
    }
    let width = |at: usize| net.widths[at] / 2.0;
    let left = (0..x.len()).map(|at| x[at] - width(at)).fold(f64::INFINITY, f64::min);
    let right = (0..x.len()).map(|at| x[at] + width(at)).fold(f64::NEG_INFINITY, f64::max);
    let centre = |at: usize| {
        let (top, bottom) = bands[ranks[at]];
        (x[at] - left, (top + bottom) / 2.0)
    };
    let way = |&at: &usize| {
        let (top, bottom) = bands[net.ranks[at]];
        (x[at] - left, top, bottom)
    };
    Layout {
        centres: (0..sizes.len()).map(centre).collect(),
        ways: ways.iter().map(|way_of| way_of.iter().map(way).collect()).collect(),
        size: (right - left, y - RANK_GAP),
        ranks,
    }
}

/// Boxes and, after them, waypoints, with an edge from each to some of the next rank.
struct Net {
    ranks: Vec<usize>,
    widths: Vec<f64>,
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
    /// Each rank from left to right.
    order: Vec<Vec<usize>>,
    boxes: usize,
}

impl Net {
    fn new(sizes: &[(f64, f64)], ranks: &[usize]) -> Self {
        let mut order = vec![Vec::new(); ranks.iter().max().map_or(0, |last| last + 1)];
        ranks.iter().enumerate().for_each(|(at, &rank)| order[rank].push(at));
        let none = vec![Vec::new(); sizes.len()];
        let widths = sizes.iter().map(|size| size.0).collect();
        Self { ranks: ranks.to_vec(), widths, above: none.clone(), below: none, order, boxes: sizes.len() }
    }

    /// Adds an edge and gives its waypoints.
    fn connect(&mut self, from: usize, to: usize) -> Vec<usize> {
        let mut ways = Vec::new();
        let mut last = from;
        for rank in self.ranks[from] + 1..self.ranks[to] {
            let way = self.ranks.len();
            self.ranks.push(rank);
            self.widths.push(WAY);
            self.above.push(Vec::new());
            self.below.push(Vec::new());
            self.order[rank].push(way);
            self.link(last, way);
            ways.push(way);
            last = way;
        }
        self.link(last, to);
        ways
    }

    fn link(&mut self, from: usize, to: usize) {
        self.below[from].push(to);
        self.above[to].push(from);
    }

    /// Sorts each rank by the mean place of its neighbours above, then below, and so on; the best order seen stays.
    fn sort_ranks(&mut self) {
        const SWEEPS: usize = 24;
        let mut best = (self.crossings(), self.order.clone());
        for sweep in 0..SWEEPS {
            let down = sweep % 2 == 0;
            let ranks: Vec<usize> =
                if down { (1..self.order.len()).collect() } else { (0..self.order.len().saturating_sub(1)).rev().collect() };
            for rank in ranks {
                let place = self.places();
                let mean = |at: usize| {
                    let neighbours = if down { &self.above[at] } else { &self.below[at] };
                    match neighbours.len() {
                        0 => place[at] as f64,
                        n => neighbours.iter().map(|&other| place[other] as f64).sum::<f64>() / n as f64,
                    }
                };
                let mut sorted: Vec<(f64, usize)> = self.order[rank].iter().map(|&at| (mean(at), at)).collect();
                // Stable: of equals, boxes stay left of waypoints.
                sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.order[rank] = sorted.into_iter().map(|(_, at)| at).collect();
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.order.clone());
            }
        }
        self.order = best.1;
    }

    /// Of each box and waypoint, its place in its rank.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.ranks.len()];
        self.order.iter().for_each(|rank| rank.iter().enumerate().for_each(|(place, &at)| places[at] = place));
        places
    }

    fn crossings(&self) -> usize {
        let places = self.places();
        let between = |rank: &Vec<usize>| {
            let mut ends: Vec<usize> = Vec::new();
            let mut crossings = 0;
            for &at in rank {
                let mut own: Vec<usize> = self.below[at].iter().map(|&other| places[other]).collect();
                own.sort_unstable();
                // `ends` is sorted: those further right were reached from further left.
                crossings += own.iter().map(|end| ends.len() - ends.partition_point(|other| other <= end)).sum::<usize>();
                ends.extend(own);
                ends.sort_unstable();
            }
            crossings
        };
        self.order.iter().map(between).sum()
    }

    /// A place from left to right for each box and waypoint.
    fn columns(&self) -> Vec<f64> {
        let column = self.straight();
        let count = column.iter().max().map_or(0, |last| last + 1);
        // Pairs of columns that are neighbours somewhere, with the distance they need.
        let mut apart: BTreeSet<(usize, usize)> = BTreeSet::new();
        let mut width = vec![0.0f64; count];
        (0..column.len()).for_each(|at| width[column[at]] = width[column[at]].max(self.widths[at]));
        for rank in &self.order {
            apart.extend(rank.windows(2).map(|pair| (column[pair[0]], column[pair[1]])));
        }
        // Edges that run side by side can do so closely.
        let gap = |a: usize, b: usize| if width[a].max(width[b]) > WAY { GAP } else { WAY };
        let distance = |a: usize, b: usize| (width[a] + width[b]) / 2.0 + gap(a, b);
        let sorted = sorted_columns(count, &apart);
        let mut x = vec![0.0f64; count];
        for &b in &sorted {
            x[b] = apart.iter().filter(|pair| pair.1 == b).map(|&(a, b)| x[a] + distance(a, b)).fold(0.0, f64::max);
        }
        let mut pulls = vec![Vec::new(); count];
        for (from, below) in self.below.iter().enumerate() {
            for &to in below.iter().filter(|&&to| column[to] != column[from]) {
                // Edges between boxes pull harder than those to the side.
                let weight = if from < self.boxes && to < self.boxes { 3.0 } else { 1.0 };
                pulls[column[from]].push((column[to], weight));
                pulls[column[to]].push((column[from], weight));
            }
        }
        let (mut left, mut right) = (vec![Vec::new(); count], vec![Vec::new(); count]);
        apart.iter().for_each(|&(a, b)| {
            left[b].push(a);
            right[a].push(b);
        });
        // Each column as near to what it is joined to as its neighbours let it.
        const SWEEPS: usize = 60;
        for sweep in 0..SWEEPS {
            let mut settle = |at: usize| {
                let weight: f64 = pulls[at].iter().map(|pull| pull.1).sum();
                if weight > 0.0 {
                    let wanted = pulls[at].iter().map(|&(other, weight)| x[other] * weight).sum::<f64>() / weight;
                    let least = left[at].iter().map(|&a| x[a] + distance(a, at)).fold(f64::NEG_INFINITY, f64::max);
                    let most = right[at].iter().map(|&b| x[b] - distance(at, b)).fold(f64::INFINITY, f64::min);
                    x[at] = wanted.min(most).max(least);
                }
            };
            if sweep % 2 == 0 { sorted.iter().rev().for_each(|&at| settle(at)) } else { sorted.iter().for_each(|&at| settle(at)) }
        }
        column.into_iter().map(|column| x[column]).collect()
    }

    /// A column for each box and waypoint: links between neighbouring ranks that are to be straight, as far as they do not cross.
    /// First from box to box, each to its first reader; then along the waypoints of an edge.
    fn straight(&self) -> Vec<usize> {
        let places = self.places();
        let mut up: Vec<Option<usize>> = vec![None; self.ranks.len()];
        for rank in &self.order {
            let is_box = |at: usize| at < self.boxes;
            let first = |at: usize| {
                self.below[at].iter().copied().find(|&to| is_box(to) && self.above[to].iter().find(|&&from| is_box(from)) == Some(&at))
            };
            let boxes = rank.iter().copied().filter(|&at| is_box(at)).filter_map(|at| Some((at, first(at)?)));
            let ways = rank.iter().copied().filter(|&at| !is_box(at)).map(|at| (at, self.below[at][0])).filter(|&(_, to)| !is_box(to));
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (from, to) in boxes.chain(ways) {
                let link = (places[from], places[to]);
                if taken.iter().all(|other| (other.0 < link.0) == (other.1 < link.1) && other.1 != link.1) {
                    taken.push(link);
                    up[to] = Some(from);
                }
            }
        }
        let mut column = vec![usize::MAX; self.ranks.len()];
        let mut next = 0;
        for &at in self.order.iter().flatten() {
            column[at] = match up[at] {
                Some(above) => column[above],
                None => {
                    next += 1;
                    next - 1
                }
            };
        }
        column
    }
}

/// Columns from left to right, such that each comes after those that it has to be right of.
fn sorted_columns(count: usize, apart: &BTreeSet<(usize, usize)>) -> Vec<usize> {
    let mut waits = vec![0; count];
    apart.iter().for_each(|&(_, b)| waits[b] += 1);
    let mut ready: Vec<usize> = (0..count).rev().filter(|&at| waits[at] == 0).collect();
    let mut sorted = Vec::with_capacity(count);
    while let Some(at) = ready.pop() {
        sorted.push(at);
        for &(_, b) in apart.range((at, 0)..(at + 1, 0)) {
            waits[b] -= 1;
            if waits[b] == 0 {
                ready.push(b);
            }
        }
    }
    sorted
}
