//! What the ARP prober's questions say of who answered: both at once, one after the other had taken
//! over, one alone.
//!
//! Every node hears every question, so two that would answer do. Deliberately absent: times that
//! are judged.

use std::time::{Duration, Instant};

use crate::arp_probe::Question;

/// This many answers in a row from one node, and the address is its own: 10 ms of questions, where the shortest lease
/// lasts 30.
const IN_A_ROW: usize = 5;

/// Questions that both nodes answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubles {
    /// How many.
    pub count: usize,
    /// From the first to the last answer of the longest row of them that no single answer interrupts.
    pub longest: Duration,
}

/// How the address went from one node to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandOvers {
    /// How often.
    pub count: usize,
    /// Answers of the node before, from the next one's first answer until that one answered alone.
    pub late: usize,
}

/// Counts what both answered.
pub fn doubles(questions: &[Question]) -> Doubles {
    let mut doubles = Doubles::default();
    let mut row: Option<Instant> = None;
    for question in questions.iter().filter(|question| !question.answers.is_empty()) {
        if !is_double(question) {
            row = None;
            continue;
        }
        let times = || question.answers.iter().map(|(at, _)| *at);
        let (first, last) = (times().min().unwrap_or(question.asked), times().max().unwrap_or(question.asked));
        doubles.count += 1;
        doubles.longest = doubles.longest.max(last - *row.get_or_insert(first));
    }
    doubles
}

/// Follows the address from node to node. One that answers five times in a row has it; until then, answers of the one
/// that had it are late.
pub fn hand_overs(questions: &[Question]) -> HandOvers {
    let mut answers: Vec<_> = questions.iter().flat_map(|question| &question.answers).copied().collect();
    answers.sort_unstable();
    let mut hand_overs = HandOvers::default();
    let Some(&(_, mut owner)) = answers.first() else { return hand_overs };
    let (mut contested, mut late) = (false, 0);
    let mut row = (owner, 0);
    for (_, by) in answers {
        row = if row.0 == by { (by, row.1 + 1) } else { (by, 1) };
        contested |= by != owner;
        late += usize::from(contested && by == owner);
        if contested && row.1 == IN_A_ROW {
            // Back at the one that had it: the row is no longer late.
            late -= if by == owner { IN_A_ROW } else { 0 };
            hand_overs.count += if by == owner { 2 } else { 1 };
            hand_overs.late += late;
            (owner, contested, late) = (by, false, 0);
        }
    }
    hand_overs.late += late;
    hand_overs
}

/// The longest row of questions that nobody answered. A prober that does not run asks nothing, so it counts silence and no
/// want of CPU.
pub fn longest_silence(questions: &[Question]) -> usize {
    questions.split(|question| !question.answers.is_empty()).map(<[_]>::len).max().unwrap_or(0)
}

/// Since when only `mac` has answered, if the last answer is from there.
pub fn alone_since(questions: &[Question], mac: [u8; 6]) -> Option<Instant> {
    let answered = questions.iter().rev().filter(|question| !question.answers.is_empty());
    answered.take_while(|question| question.answers.iter().all(|(_, by)| *by == mac)).last().map(|first| first.asked)
}

fn is_double(question: &Question) -> bool {
    question.answers.iter().any(|(_, mac)| *mac != question.answers[0].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

    /// A question every 2 ms; each letter of a word answers it, 1 us after another.
    fn asked(words: &[&str]) -> (Instant, Vec<Question>) {
        let start = Instant::now();
        let at =
            |number: usize, micros| start + Duration::from_millis(2 * number as u64) + Duration::from_micros(micros);
        let answers = |number, word: &str| {
            let by = |letter| if letter == 'a' { A } else { B };
            word.chars().zip(1..).map(|(letter, micros)| (at(number, micros), by(letter))).collect()
        };
        let question =
            |(number, word): (usize, &&str)| Question { asked: at(number, 0), answers: answers(number, word) };
        (start, words.iter().enumerate().map(question).collect())
    }

    #[test]
    fn what_both_answered_is_counted_and_the_longest_row_measured() {
        let (_, questions) = asked(&["a", "ab", "", "ba", "b", "ab", "b", "aa"]);
        // From 2.001 ms to 6.002 ms; a question without an answer does not interrupt.
        assert_eq!(doubles(&questions), Doubles { count: 3, longest: Duration::from_micros(4_001) });
        assert_eq!(doubles(&[]), Doubles::default());
    }

    #[test]
    fn a_clean_hand_over_has_no_late_answers() {
        let words = [["a"; 30], [""; 30], ["b"; 30], ["a"; 30]].concat();
        assert_eq!(hand_overs(&asked(&words).1), HandOvers { count: 2, late: 0 });
        assert_eq!(hand_overs(&asked(&["a"; 90]).1), HandOvers::default());
        assert_eq!(hand_overs(&asked(&[""; 90]).1), HandOvers::default());
    }

    #[test]
    fn answers_after_the_other_ones_first_are_late() {
        let words = [["a"; 30].as_slice(), &["b", "a", "ab", "ab"], &["b"; 30]].concat();
        assert_eq!(hand_overs(&asked(&words).1), HandOvers { count: 1, late: 3 });
        // Both for ever: it never goes over.
        assert_eq!(hand_overs(&asked(&["ab"; 40]).1), HandOvers { count: 0, late: 39 });
        // A lease of 10 ms adverts, and the next one's.
        let words = [["a"; 30].as_slice(), &["b"; 20], &["a"; 14], &["b"; 30]].concat();
        assert_eq!(hand_overs(&asked(&words).1), HandOvers { count: 3, late: 0 });
        // For a moment.
        let words = [["a"; 30].as_slice(), &["ab", "b"], &["a"; 30]].concat();
        assert_eq!(hand_overs(&asked(&words).1), HandOvers { count: 2, late: 0 });
    }

    #[test]
    fn a_silence_is_a_row_of_questions_without_an_answer() {
        assert_eq!(longest_silence(&asked(&["", "a", "", "", "b", ""]).1), 2);
        assert_eq!(longest_silence(&asked(&["a", "", "", ""]).1), 3);
        assert_eq!(longest_silence(&asked(&["a", "ab"]).1), 0);
        assert_eq!(longest_silence(&[]), 0);
    }

    #[test]
    fn alone_is_who_answered_last_and_since_the_others_last_answer() {
        let (start, questions) = asked(&["a", "ab", "", "a", "", "a"]);
        assert_eq!(alone_since(&questions, A), Some(start + Duration::from_millis(6)));
        assert_eq!(alone_since(&questions, B), None);
        assert_eq!(alone_since(&questions[..2], A), None);
    }
}
