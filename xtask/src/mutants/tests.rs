//! The machinery, with a shell script in the simulator's place; and the real mutations' texts.

use std::fs;

use super::*;

fn edit(file: &str, find: &str, replace: &str) -> Edit {
    Edit { file: file.into(), find: find.into(), replace: replace.into() }
}

fn mutation(edits: &[Edit]) -> Mutation {
    Mutation { name: "any".into(), seed: None, edits: edits.to_vec() }
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
    assert_eq!(caught, Outcome::Caught { seed: 12, what: "two answer: a, b".into() });
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

/// A workspace of one file. It "builds" unless that says `syntax error`, and its program is a script that gets the first
/// seed and the number of seeds.
fn with_scripts(build: &str, program: &str, seeds: Seeds, test: impl FnOnce(&Rig<'_>)) {
    let directory = tempfile::tempdir().unwrap();
    let (root, tree) = (directory.path().join("root"), directory.path().join("tree"));
    for place in [&root, &tree] {
        fs::create_dir(place).unwrap();
        fs::write(place.join("source"), "right").unwrap();
        fs::write(place.join("program"), program).unwrap();
    }
    let (build, there) = (build.to_string(), tree.clone());
    let build = move || {
        let mut command = Command::new("sh");
        command.args(["-c", &build]).current_dir(&there);
        command
    };
    let there = tree.clone();
    let run = move |first: u64, count: u64| {
        let mut command = Command::new("sh");
        command.arg("built").args([first.to_string(), count.to_string()]).current_dir(&there);
        command
    };
    let patience = Duration::from_millis(300);
    let (build, run) = (Box::new(build), Box::new(run));
    test(&Rig { root: &root, tree: tree.clone(), build, run, seeds, patience });
    assert_eq!(fs::read_to_string(tree.join("source")).unwrap(), "right", "the mutation is taken back");
}

/// What each replacement of "right" came to.
fn outcomes(rig: &Rig<'_>, replacements: &[(&str, Option<u64>)]) -> Vec<Outcome> {
    let named = |(replace, seed): &(&str, Option<u64>)| Mutation {
        name: (*replace).into(),
        seed: *seed,
        edits: vec![edit("source", "right", replace)],
    };
    let rows = try_all(std::slice::from_ref(rig), replacements.iter().map(named).collect(), |_| ()).unwrap();
    assert!(rows.iter().zip(replacements).all(|(row, (name, _))| row.name == *name), "in their order");
    rows.into_iter().map(|row| row.outcome).collect()
}

fn caught(seed: u64) -> Outcome {
    Outcome::Caught { seed, what: "two answer".into() }
}

/// Puts the source in front of the program.
const BUILD: &str =
    "if grep 'syntax error' source; then exit 1; fi; (echo \"source='$(cat source)'\"; cat program) > built";
/// Only seed 4 shows a wrong source.
const RUN: &str =
    "if [ \"$source\" = wrong ] && [ $1 -le 4 ] && [ $(($1 + $2)) -gt 4 ]; then echo 'seed 4: two answer'; exit 1; fi";
const NINE: Seeds = Seeds::From { first: 1, count: 9 };

#[test]
fn a_mutant_is_caught_survives_or_does_not_build() {
    with_scripts(BUILD, RUN, NINE, |rig| {
        let all = outcomes(rig, &[("wrong", None), ("odd", None), ("syntax error", None), ("odd", None)]);
        assert_eq!(all[0], caught(4));
        assert_eq!(all[1], Outcome::Survived);
        assert!(matches!(&all[2], Outcome::Broken(why) if why.contains("not build:\nsyntax error")), "{:?}", all[2]);
        // What one mutant left built is not the next one's.
        assert_eq!(all[3], Outcome::Survived);
        let unknown = try_all(std::slice::from_ref(rig), vec![mutation(&[edit("source", "left", "wrong")])], |_| ())
            .unwrap()
            .remove(0)
            .outcome;
        assert!(matches!(&unknown, Outcome::Broken(why) if why.contains("source has 0 times")), "{unknown:?}");
    });
}

#[test]
fn a_recorded_seed_is_played_first_and_the_others_if_it_shows_nothing() {
    with_scripts(BUILD, RUN, Seeds::RecordedFirst { first: 1, count: 3 }, |rig| {
        let all = outcomes(rig, &[("wrong", Some(4)), ("wrong", Some(5)), ("wrong", None)]);
        // Beyond the three that are tried.
        assert_eq!(all, [caught(4), Outcome::Survived, Outcome::Survived]);
    });
    with_scripts(BUILD, RUN, Seeds::RecordedFirst { first: 2, count: 9 }, |rig| {
        assert_eq!(outcomes(rig, &[("wrong", Some(5)), ("wrong", None)]), [caught(4), caught(4)]);
    });
}

#[test]
fn a_simulator_that_fails_by_itself_proves_nothing() {
    let wrong = || vec![mutation(&[edit("source", "right", "wrong")])];
    with_scripts(BUILD, "echo 'seed 1: two answer'; exit 1", NINE, |rig| {
        let error = try_all(std::slice::from_ref(rig), wrong(), |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "the simulator fails without a mutation: two answer");
    });
    with_scripts(
        "if ! grep -q wrong source; then exit 1; fi; cp program built",
        "echo 'seed 1: x'; exit 1",
        NINE,
        |rig| {
            assert!(
                try_all(std::slice::from_ref(rig), wrong(), |_| ()).unwrap_err().to_string().contains("does not build")
            );
        },
    );
}

#[test]
fn a_simulator_that_never_ends_is_killed() {
    with_scripts(BUILD, "if [ $source = wrong ]; then exec sleep 600; fi", NINE, |rig| {
        let all = outcomes(rig, &[("wrong", None)]);
        assert!(matches!(&all[0], Outcome::Broken(why) if why.contains("did not end within")), "{:?}", all[0]);
    });
}

#[test]
fn seeds_are_noted_and_all_else_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = "# Why.\n\n[[mutation]]\nname = \"one\"\n[[mutation.edits]]\nfile = \"a\"\nfind = \"b\"\nreplace = \"\"\"\nc\"\"\"\n\n\
                [[mutation]]\nname = \"two\"\nseed = 7\nedits = []\n";
    fs::write(&path, text).unwrap();
    let row = |mutation: Mutation, outcome| Row { name: mutation.name.clone(), outcome, seconds: 0.0, mutation };
    let [one, two] = read(directory.path()).unwrap().try_into().unwrap();
    record(directory.path(), &[row(one, caught(12)), row(two, Outcome::Survived)]).unwrap();
    let expected = text.replace("name = \"one\"\n", "name = \"one\"\nseed = 12\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn what_was_caught_is_known_until_anything_changes() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    for name in ["Cargo.lock", "Cargo.toml", "failover-common/a.rs", "failover-ebpf/a.rs", "failover-userspace/a.rs"]
        .into_iter()
        .chain(["tests/data/frames.txt", "tests/sim/a.rs", "tests/other.rs"])
    {
        write_if_different(&root.join(name), name.as_bytes()).unwrap();
    }
    let file = directory.path().join("caught.toml");
    let known = |mutation: &Mutation, words: &str| {
        let mut build = Command::new("cargo");
        build.arg(words);
        Caught::read(&file, &root, &build).unwrap().divide(vec![mutation.clone()]).0.len()
    };
    let one = mutation(&[edit("a", "b", "c")]);
    assert_eq!(known(&one, "build"), 0);
    let row = Row { name: one.name.clone(), outcome: caught(5), seconds: 1.0, mutation: one.clone() };
    let mut build = Command::new("cargo");
    build.arg("build");
    Caught::read(&file, &root, &build).unwrap().write(&[row]).unwrap();
    assert_eq!(known(&one, "build"), 1);
    assert_eq!(known(&mutation(&[edit("a", "b", "d")]), "build"), 0, "another edit");
    assert_eq!(known(&one, "check"), 0, "another build");
    fs::write(root.join("tests/other.rs"), "changed").unwrap();
    assert_eq!(known(&one, "build"), 1, "nothing of the simulator's");
    fs::write(root.join("tests/sim/a.rs"), "changed").unwrap();
    assert_eq!(known(&one, "build"), 0, "a source");
}
