//! What is found out once in a run.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

/// Answers by what was asked. Who asks for what another one is finding out waits for that.
#[derive(Debug)]
pub(super) struct Memo<K, V>(Mutex<HashMap<K, Arc<OnceCell<V>>>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memo<K, V> {
    /// Returns what is known, or finds it out.
    pub(super) async fn get(&self, key: K, find_out: impl Future<Output = V>) -> V {
        let cell = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        cell.get_or_init(|| find_out).await.clone()
    }
}

/// How often one gave no answer, since its last one.
#[derive(Debug)]
pub(super) struct Failures<K>(Mutex<HashMap<K, usize>>);

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Failures<K> {
    /// Takes in whether one answered.
    pub(super) fn note(&self, key: K, answered: bool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        *count = if answered { 0 } else { *count + 1 };
    }

    /// Returns how often it gave none.
    pub(super) fn count(&self, key: &K) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or_default()
    }
}
