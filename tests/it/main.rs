//! What Topolab promises, across its crates: one module a behaviour.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test that cannot go on stops, and candle's own operations are what ours are compared with"
)]

mod alone; // what is measured where nothing else runs
mod golden; // files that reference programs wrote, and real data where it is
mod nets; // networks that several tests look at
mod programs; // ours, as they are started
mod python; // Python, where there is one
mod skips; // tests that lack something: counted, or a failure

mod downloading; // data sets by name: interrupted, resumed, checked
mod reading; // public files become samples, or an error that says what is wrong with them
mod synthesising; // samples drawn from a seed

mod augmenting; // picture to picture: the reference programs' pixels, and what holds for every draw
mod commanding; // the program `pipeline`, from a shell: help, results, errors, kills, a full disk
mod converting; // a data set becomes a store: the same on any number of threads, after any interruption, or not at all
mod decoding; // bytes to a picture: what is decoded, what is refused, and that any bytes end in one or the other
mod loading; // a store's pictures as batches: the same on any number of threads, from any batch on, in any number of processes
mod one_program; // all commands under one name
mod ordering; // which sample is in which batch: permutations, shards, resuming
mod recycling; // how often a loader that runs asks for memory
mod reforming; // pictures told by their headers, turned, reduced, rewritten
mod seeding; // what folder2lmdb.py wrote
mod serving; // batches from a server are those of a loader, whatever happens to the connection, the other clients or the server
mod storing; // a store gives back what was put in, or an error, whatever its bytes
mod surviving; // kills at any moment, full disks, folders that cannot be written
mod tickets; // the JSON schema of tickets says what the server takes

mod accumulating; // a batch in parts gives the gradient of the whole; a published loop
mod bookkeeping; // gradients by our own books are those of candle's
mod building; // architectures as values: shapes, names, parameters, topology
mod computing; // kernels against plain loops, on any number of threads
mod conditioning; // singular values of layers before training: the published program's, and the theory's
mod convolving; // convolutions of any sizes, by each of their ways
mod differentiating; // every gradient against central differences
mod evaluating; // published checkpoints give the numbers of PyTorch on the same pictures
mod exporting; // ONNX files: accepted by the checker, and the same logits in onnxruntime
mod families; // networks of papers: counts, names, logits and gradients of the reference programs
mod fitting; // what the allocator saw of a run, against what was planned
mod linking; // networks of random links: the published program's, and those of a given mass
mod matching_pytorch; // kernels against PyTorch's numbers
mod mixing; // mixed precision: which operation computes in which type
mod on_cuda; // a card computes what the CPU does; skips where there is none
mod operations; // gates, norms, resampling, dropout: gradients and laws
mod remembering; // memory by liveness, and the batches that fit
mod resuming; // a run that was killed goes on as if it had not been
mod rewriting; // batch norm folded, dead channels removed: the same value
mod running; // logits against the original's, modes, traces, checkpoints
mod scheduling; // learning rates: formulas, and the published programs'
mod training; // it learns, repeats, follows its recipe, and says when it cannot go on
mod training_on_stores; // the whole chain on real pictures: files, store, loader, network, accuracy
mod weighing; // weights from the files of PyTorch and safetensors

mod drawing; // a figure holds the numbers of its table
mod notebooks; // cells share one candle; parameters; a failing cell
mod sketching; // pictures of networks: nothing lies on anything else
mod sweeping; // what finished stays, what failed says why, plans are what they say
mod sweeping_by_command; // the program `lab`: plans, results, tables
mod tabulating; // rows become tables, tables become other tables and files
