//! The machinery, with a shell script in the simulator's place; and the real mutations' texts.

use std::fs;

use super::*;

fn edit(file: &str, find: &str, replace: &str) -> Edit {
    Edit { file: file.into(), find: find.into(), replace: replace.into() }
}

fn mutation(edits: &[Edit]) -> Mutation {
    Mutation { name: "any".into(), edits: edits.to_vec() }
}

fn ran(code: Option<i32>, output: &str) -> Captured {
    Captured { code, output: output.into() }
}

#[test]
fn every_mutation_applies_to_the_sources_as_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mutations = read(root).unwrap();
    let errors: Vec<String> = mutations
        .iter()
        .filter_map(|mutation| mutation.apply(root).err().map(|error| format!("{}: {error:#}", mutation.name)))
        .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    let mut names: Vec<&str> = mutations.iter().map(|mutation| mutation.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), mutations.len(), "two mutations have one name");
}

#[test]
fn a_text_must_be_there_exactly_once() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), "one two one").unwrap();
    let apply = |edits: &[Edit]| mutation(edits).apply(root.path()).map(|changed| changed["a"].clone());
    assert_eq!(apply(&[edit("a", "two", "three")]).unwrap(), "one three one");
    assert_eq!(apply(&[edit("a", " two", ""), edit("a", "one one", "none")]).unwrap(), "none");
    for (edits, expected) in [
        (vec![edit("a", "one", "x")], "a has 2 times"),
        (vec![edit("a", "four", "x")], "a has 0 times"),
        (vec![edit("a", "", "x")], "a has 0 times"),
        (vec![edit("a", "two", "two")], "replaced by itself"),
        (vec![edit("b", "two", "x")], "reading "),
        (vec![], "no edits"),
    ] {
        let error = format!("{:#}", apply(&edits).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn only_a_named_seed_with_exit_code_1_is_a_catch() {
    let caught = verdict(&ran(Some(1), "some\nseed 12: two answer: a, b\nseed 13: later\n"), 10);
    assert_eq!(caught, Outcome::Caught { seeds: 3, what: "two answer: a, b".into() });
    assert_eq!(verdict(&ran(Some(0), "2000 runs held\n"), 10), Outcome::Survived);
    for (code, output) in [
        (Some(1), "error: no such option\n"),
        (Some(1), "seed ?: two answer\n"),
        (Some(1), "seed 9: before the first\n"),
        (Some(0), "seed 12: two answer\n"),
        (Some(101), "seed 12: two answer\n"),
        (Some(101), "thread panicked\n"),
        (None, ""),
    ] {
        let outcome = verdict(&ran(code, output), 10);
        assert!(matches!(outcome, Outcome::Broken(_)), "{code:?} {output}: {outcome:?}");
    }
}

/// A workspace of one file. It "builds" unless that says `syntax error`, and "fails" when it says `wrong`.
fn with_scripts(build: &str, run: &str, test: impl FnOnce(&Rig<'_>)) {
    let directory = tempfile::tempdir().unwrap();
    let (root, tree) = (directory.path().join("root"), directory.path().join("tree"));
    for place in [&root, &tree] {
        fs::create_dir(place).unwrap();
        fs::write(place.join("source"), "right").unwrap();
    }
    let script = |text: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", text]).current_dir(&tree);
        command
    };
    let (build, run) = (|| script(build), |_| script(run));
    let patience = Duration::from_millis(300);
    test(&Rig { root: &root, tree: &tree, build: &build, run: &run, first_seed: 1, seeds: 9, patience });
    assert_eq!(fs::read_to_string(tree.join("source")).unwrap(), "right", "the mutation is taken back");
}

const BUILD: &str = "if grep 'syntax error' source; then exit 1; fi; cp source built";
const RUN: &str = "if grep -q wrong built; then echo 'seed 4: two answer'; exit 1; fi";

#[test]
fn a_mutant_is_caught_survives_or_does_not_build() {
    with_scripts(BUILD, RUN, |rig| {
        rig.check_unspoilt(9).unwrap();
        let outcome = |replace| rig.try_one(&mutation(&[edit("source", "right", replace)])).outcome;
        assert_eq!(outcome("wrong"), Outcome::Caught { seeds: 4, what: "two answer".into() });
        assert_eq!(outcome("odd"), Outcome::Survived);
        let broken = outcome("syntax error");
        assert!(matches!(&broken, Outcome::Broken(why) if why.contains("not build:\nsyntax error")), "{broken:?}");
        let unknown = rig.try_one(&mutation(&[edit("source", "left", "wrong")])).outcome;
        assert!(matches!(&unknown, Outcome::Broken(why) if why.contains("source has 0 times")), "{unknown:?}");
        // What one mutant left built is not the next one's.
        assert_eq!(outcome("odd"), Outcome::Survived);
    });
}

#[test]
fn a_simulator_that_fails_by_itself_proves_nothing() {
    with_scripts(BUILD, "echo 'seed 1: two answer'; exit 1", |rig| {
        let error = rig.check_unspoilt(9).unwrap_err();
        assert_eq!(error.to_string(), "the simulator fails without a mutation: two answer");
    });
    with_scripts("exit 1", RUN, |rig| {
        assert!(rig.check_unspoilt(9).unwrap_err().to_string().contains("does not build"));
    });
}

#[test]
fn a_simulator_that_never_ends_is_killed() {
    with_scripts(BUILD, "if grep -q wrong built; then exec sleep 600; fi", |rig| {
        rig.check_unspoilt(9).unwrap();
        let outcome = rig.try_one(&mutation(&[edit("source", "right", "wrong")])).outcome;
        assert!(matches!(&outcome, Outcome::Broken(why) if why.contains("did not end within")), "{outcome:?}");
    });
}
