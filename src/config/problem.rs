//! What is wrong with a configuration, told all at once.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    File {
        file: Arc<Path>,
        /// Counted from one; absent where the file as a whole is meant.
        line: Option<usize>,
        column: Option<usize>,
    },
    /// The name of an environment variable.
    Variable(String),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// The key's full TOML path, such as `tenants[1].keys[0].sha256`; empty
    /// where no key can be named.
    pub path: String,
    pub message: String,
}

/// Everything that is wrong, in the order of the places; never empty where it
/// is an error. Written as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

// === impl Problems ===

impl Problems {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.place.cmp(&b.place));
        Self(problems)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        // Values are quoted in messages; a line break in one must not look
        // like another problem.
        let one_line = self.message.chars().map(|c| if c.is_control() { ' ' } else { c });
        one_line.into_iter().try_for_each(|c| write!(f, "{c}"))
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::File { file, line, column } => {
                write!(f, "{}", file.display())?;
                line.iter().try_for_each(|line| write!(f, ":{line}"))?;
                column.iter().try_for_each(|column| write!(f, ":{column}"))
            }
        }
    }
}
