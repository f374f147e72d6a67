//! When an object was created.

/// `metadata.creationTimestamp`, to the second. The order is the precedence of Ingresses: the older first, those without
/// one last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Created(i64);

impl Created {
    /// Nothing says when; so it is in most files.
    pub const UNKNOWN: Self = Self(i64::MAX);

    /// At seconds since 1970.
    pub const fn at(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970, if it is known.
    pub fn seconds(self) -> Option<i64> {
        (self != Self::UNKNOWN).then_some(self.0)
    }
}

impl Default for Created {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl From<Option<i64>> for Created {
    fn from(seconds: Option<i64>) -> Self {
        seconds.map_or(Self::UNKNOWN, Self::at)
    }
}

#[cfg(test)]
mod tests {
    use super::Created;

    #[test]
    fn the_older_goes_first_and_what_nobody_knows_last() {
        assert!(Created::at(-1) < Created::at(0) && Created::at(1_795_339_801) < Created::default());
        assert_eq!([Created::at(7), Created::from(None)].map(Created::seconds), [Some(7), None]);
    }
}
