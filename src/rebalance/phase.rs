//! The phases of a move as a table: what happens next after each event. Pure: [`super::mover`] does what is said here.
//!
//! Before the flip the source has every row and every write: whatever fails gives the slots back to it at once (nothing
//! stays fenced), and the work is tried again, or undone by deleting what lies on the target. The flip is one
//! distributed transaction that also writes [`Phase::Flipped`]: a crash leaves it done or not done. After it the target is
//! the owner and has writes of its own, so that a failure must not go back: the same step is tried again until it works.
//! Only a rollback that was asked for, which hands the slots over in the other direction by the same protocol, returns them.

use std::fmt;
use std::str::FromStr;

/// How far a move is; recorded on its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It waits for its turn. Nothing is changed yet.
    Planned,
    /// The rows are copied. What a crash leaves of that is deleted, and the copy starts again.
    Copying,
    /// What was written during the copy follows, by logical replication.
    CatchingUp,
    /// Both sides are compared.
    Verifying,
    /// Both sides were the same; handing over was given up, and will be tried again.
    Ready,
    /// The slots are fenced on the source; the flip may happen any time now.
    HandingOver,
    /// The target owns the slots; the stream is being turned round.
    Flipped,
    /// The source follows the target, so that a rollback loses nothing.
    Kept,
    /// A rollback: the slots are fenced on the target.
    HandingBack,
    /// The move is to be completed: both sides are compared once more.
    Completing,
    /// The rows are deleted from the source.
    Cleaning,
    /// The rows are deleted from the target: of a move that was cancelled or rolled back.
    Undoing,
    /// Over: the target owns the slots and alone has the rows.
    Done,
    /// Over: the source owns the slots and alone has the rows.
    Undone,
}

/// Every phase with the word for it in `pgring.move`.
const WORDS: [(Phase, &str); 14] = [
    (Phase::Planned, "planned"),
    (Phase::Copying, "copying"),
    (Phase::CatchingUp, "catching up"),
    (Phase::Verifying, "verifying"),
    (Phase::Ready, "ready"),
    (Phase::HandingOver, "handing over"),
    (Phase::Flipped, "flipped"),
    (Phase::Kept, "kept"),
    (Phase::HandingBack, "handing back"),
    (Phase::Completing, "completing"),
    (Phase::Cleaning, "cleaning"),
    (Phase::Undoing, "undoing"),
    (Phase::Done, "done"),
    (Phase::Undone, "undone"),
];

/// What happened to a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A router took it up, for the first time or after another one died.
    TakenUp,
    /// The action that the phase stands for is done.
    Done,
    /// The two sides differ.
    Differs,
    /// The action failed.
    Failed,
    /// Somebody asked for CANCEL.
    Cancel,
    /// Somebody asked for ROLLBACK.
    Rollback,
    /// Somebody asked for COMPLETE.
    Complete,
}

/// What is to be done now. Every action can be done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Delete what an earlier try left on the target, then copy.
    Copy,
    /// Let the stream run until the target is close behind.
    CatchUp,
    /// Compare the sides.
    Verify,
    /// Fence the source, let the target come level, flip.
    HandOver,
    /// Unfence the source.
    GiveBack,
    /// Settle the flip; turn the stream round.
    Keep,
    /// Nothing until somebody asks for something.
    Wait,
    /// Fence the target, let the source come level, flip back.
    HandBack,
    /// Unfence the target.
    TakeBack,
    /// Drop the stream; delete the rows from the source.
    Clean,
    /// Drop the streams; delete the rows from the target.
    Undo,
    /// Tell people, and pause.
    Stop,
    /// It is over.
    End,
}

/// A phase in which this cannot happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a move that is {phase} cannot be {}", .event.asked())]
pub struct TransitionError {
    /// Where it is.
    pub phase: Phase,
    /// What came.
    pub event: Event,
}

impl Event {
    fn asked(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Rollback => "rolled back",
            Self::Complete => "completed",
            Self::TakenUp => "taken up",
            Self::Done => "done with that",
            Self::Differs => "found different",
            Self::Failed => "failed",
        }
    }
}

impl Phase {
    /// What follows: the phase to record and the action to do then.
    ///
    /// # Errors
    /// [`TransitionError`]: it changes nothing.
    pub fn next(self, event: Event) -> Result<(Self, Action), TransitionError> {
        match (self, event) {
            (Self::Planned, Event::TakenUp) => Ok((Self::Copying, Action::Copy)),
            (Self::Planned, Event::Cancel) => Ok((Self::Undone, Action::End)),

            (Self::Copying, Event::TakenUp | Event::Failed) => Ok((Self::Copying, Action::Copy)),
            (Self::Copying, Event::Done) => Ok((Self::CatchingUp, Action::CatchUp)),

            (Self::CatchingUp, Event::TakenUp | Event::Failed) => {
                Ok((Self::CatchingUp, Action::CatchUp))
            }
            (Self::CatchingUp, Event::Done) => Ok((Self::Verifying, Action::Verify)),

            (Self::Verifying, Event::TakenUp | Event::Failed) => {
                Ok((Self::CatchingUp, Action::CatchUp))
            }
            (Self::Verifying, Event::Differs) => Ok((Self::Verifying, Action::Stop)),
            (Self::Verifying, Event::Done) => Ok((Self::HandingOver, Action::HandOver)),

            // Taken up, it may have been unfenced or not.
            (Self::Ready, Event::TakenUp | Event::Failed) => Ok((Self::Ready, Action::GiveBack)),
            (Self::Ready, Event::Done) => Ok((Self::HandingOver, Action::HandOver)),

            (Self::HandingOver, Event::TakenUp | Event::Failed) => {
                Ok((Self::Ready, Action::GiveBack))
            }
            (Self::HandingOver, Event::Done) => Ok((Self::Flipped, Action::Keep)),

            (Self::Flipped, Event::TakenUp | Event::Failed) => Ok((Self::Flipped, Action::Keep)),
            (Self::Flipped, Event::Done) => Ok((Self::Kept, Action::Wait)),

            (Self::Copying | Self::CatchingUp | Self::Verifying | Self::Ready, Event::Cancel) => {
                Ok((Self::Undoing, Action::Undo))
            }

            (Self::Kept, Event::TakenUp | Event::Done) => Ok((Self::Kept, Action::Wait)),
            (Self::Kept, Event::Failed) => Ok((Self::Kept, Action::TakeBack)),
            (Self::Kept, Event::Rollback) => Ok((Self::HandingBack, Action::HandBack)),
            (Self::Kept, Event::Complete) => Ok((Self::Completing, Action::Verify)),

            (Self::HandingBack, Event::TakenUp | Event::Failed) => {
                Ok((Self::Kept, Action::TakeBack))
            }
            (Self::HandingBack, Event::Done) => Ok((Self::Undoing, Action::Undo)),

            (Self::Completing, Event::TakenUp | Event::Failed) => {
                Ok((Self::Completing, Action::Verify))
            }
            (Self::Completing, Event::Differs) => Ok((Self::Completing, Action::Stop)),
            (Self::Completing, Event::Rollback) => Ok((Self::HandingBack, Action::HandBack)),
            (Self::Completing, Event::Done) => Ok((Self::Cleaning, Action::Clean)),

            (Self::Cleaning, Event::TakenUp | Event::Failed) => Ok((Self::Cleaning, Action::Clean)),
            (Self::Cleaning, Event::Done) => Ok((Self::Done, Action::End)),

            (Self::Undoing, Event::TakenUp | Event::Failed) => Ok((Self::Undoing, Action::Undo)),
            (Self::Undoing, Event::Done) => Ok((Self::Undone, Action::End)),

            (Self::Done | Self::Undone, Event::TakenUp) => Ok((self, Action::End)),

            // Nothing is compared, or asked for, or done, in these.
            (
                Self::Planned,
                Event::Done | Event::Differs | Event::Failed | Event::Rollback | Event::Complete,
            )
            | (
                Self::Copying | Self::CatchingUp | Self::Ready,
                Event::Differs | Event::Rollback | Event::Complete,
            )
            | (Self::Verifying, Event::Rollback | Event::Complete)
            | (
                Self::HandingOver
                | Self::Flipped
                | Self::HandingBack
                | Self::Cleaning
                | Self::Undoing,
                Event::Differs | Event::Cancel | Event::Rollback | Event::Complete,
            )
            | (Self::Kept, Event::Differs | Event::Cancel)
            | (Self::Completing, Event::Cancel | Event::Complete)
            | (
                Self::Done | Self::Undone,
                Event::Done
                | Event::Differs
                | Event::Failed
                | Event::Cancel
                | Event::Rollback
                | Event::Complete,
            ) => Err(TransitionError { phase: self, event }),
        }
    }

    /// Whether nothing is left to do.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Undone)
    }

    /// Whether the target has owned the slots, or may.
    pub fn is_after_flip(self) -> bool {
        match self {
            Self::Flipped
            | Self::Kept
            | Self::HandingBack
            | Self::Completing
            | Self::Cleaning
            | Self::Done => true,
            Self::Planned
            | Self::Copying
            | Self::CatchingUp
            | Self::Verifying
            | Self::Ready
            | Self::HandingOver
            | Self::Undoing
            | Self::Undone => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(phase, _)| phase == self);
        f.write_str(word.map_or("", |(_, word)| word))
    }
}

/// A word that is no phase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a phase of a move")]
pub struct PhaseError(String);

impl FromStr for Phase {
    type Err = PhaseError;

    fn from_str(text: &str) -> Result<Self, PhaseError> {
        let phase = WORDS.iter().find(|(_, word)| *word == text);
        phase
            .map(|(phase, _)| *phase)
            .ok_or_else(|| PhaseError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 7] = [
        Event::TakenUp,
        Event::Done,
        Event::Differs,
        Event::Failed,
        Event::Cancel,
        Event::Rollback,
        Event::Complete,
    ];

    fn run(start: Phase, events: &[Event]) -> (Phase, Action) {
        let mut at = (start, Action::Wait);
        for event in events {
            at = at.0.next(*event).unwrap();
        }
        at
    }

    #[test]
    fn every_phase_reads_as_it_prints() {
        for (phase, word) in WORDS {
            assert_eq!(phase.to_string(), word);
            assert_eq!(word.parse(), Ok(phase));
        }
        assert!("".parse::<Phase>().is_err());
    }

    #[test]
    fn a_move_goes_from_planned_to_done() {
        let way = [
            Event::TakenUp,
            Event::Done,
            Event::Done,
            Event::Done,
            Event::Done,
        ];
        assert_eq!(run(Phase::Planned, &way), (Phase::Flipped, Action::Keep));
        let end = [Event::Done, Event::Complete, Event::Done, Event::Done];
        assert_eq!(run(Phase::Flipped, &end), (Phase::Done, Action::End));
    }

    #[test]
    fn no_event_but_the_flip_makes_the_target_the_owner() {
        for (phase, _) in WORDS {
            for event in EVENTS {
                let Ok((next, _)) = phase.next(event) else {
                    continue;
                };
                if next.is_after_flip() && !phase.is_after_flip() {
                    assert_eq!((phase, event), (Phase::HandingOver, Event::Done));
                }
                if phase.is_after_flip() && !next.is_after_flip() {
                    assert_eq!((phase, event), (Phase::HandingBack, Event::Done));
                }
            }
        }
    }

    #[test]
    fn a_failure_before_the_flip_fences_nothing_and_one_after_it_is_tried_again() {
        for (phase, _) in WORDS.into_iter().filter(|(phase, _)| !phase.is_over()) {
            let Ok((next, action)) = phase.next(Event::Failed) else {
                assert_eq!(phase, Phase::Planned);
                continue;
            };
            if phase != Phase::Kept {
                assert_eq!(phase.next(Event::TakenUp), Ok((next, action)), "{phase}");
            }
            match phase {
                Phase::HandingOver => assert_eq!(action, Action::GiveBack),
                Phase::HandingBack => assert_eq!(action, Action::TakeBack),
                Phase::Flipped
                | Phase::Kept
                | Phase::Completing
                | Phase::Cleaning
                | Phase::Undoing => {
                    assert_eq!(next, phase);
                }
                _ => assert!(!next.is_after_flip(), "{phase}"),
            }
        }
    }

    #[test]
    fn what_is_over_stays_so() {
        for phase in [Phase::Done, Phase::Undone] {
            for event in EVENTS {
                let over = phase.next(event);
                assert!(over.is_err() || over == Ok((phase, Action::End)));
            }
        }
    }

    #[test]
    fn nothing_is_cancelled_after_the_flip_nor_completed_before_it() {
        for (phase, _) in WORDS {
            if phase.is_after_flip() {
                assert!(phase.next(Event::Cancel).is_err());
            } else {
                assert!(phase.next(Event::Complete).is_err());
                assert!(phase.next(Event::Rollback).is_err());
            }
        }
        let refused = Phase::Kept.next(Event::Cancel).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a move that is kept cannot be cancelled"
        );
    }
}
