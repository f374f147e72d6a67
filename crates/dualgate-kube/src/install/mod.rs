//! Puts an installation into a cluster: looks, applies, prunes, waits. What is wanted, what differs and what is ours is
//! decided in `core::plan::install`.
//!
//! Whatever ends it in the middle, the next run goes on: each step is a whole object, and the inventory names what is to
//! come before it is made, and what is to go until it has gone.

mod account;
mod api;
mod back;
mod wait;

use std::collections::BTreeSet;

use dualgate_core::plan::install::apply_set::{Inventory, ParentError, is_protected, member, parent_id, set_of, uid};
use dualgate_core::plan::install::changes::{self, Action, Change};
use dualgate_core::plan::install::object::ObjectId;
use dualgate_core::plan::install::{NAMESPACE, apply_set};
use kube::Client;
use serde_json::Value;

use api::{Api, Deletion, Refusal, Write};

pub use account::{Account, account};
pub use api::{Conflict, Conflicts};
pub use back::{take_back, written};
pub use wait::wait;

/// Why an installation stopped. What was done until then stays, and the next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The API server did not do what it was asked to.
    #[error("{what}: {why}")]
    Api {
        /// What was asked for.
        what: String,
        /// What it said.
        why: String,
    },
    /// The parent of the set cannot be used.
    #[error(transparent)]
    Parent(#[from] ParentError),
    /// Others have fields that are to be written, since the cluster was looked at.
    #[error("{} belongs to {}", .0.field, .0.manager)]
    Conflict(Conflict),
    /// Another installation is under way.
    #[error(
        "the ConfigMap {NAMESPACE}/{} was changed meanwhile: somebody else installs; run it again",
        apply_set::PARENT
    )]
    Meanwhile,
}

/// Which of what is no longer wanted is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// Nothing.
    Nothing,
    /// All but what takes more with it than itself: a Namespace, for example.
    Unprotected,
    /// All of it.
    Everything,
}

impl Prune {
    /// Whether it removes this object.
    pub fn removes(self, id: &ObjectId) -> bool {
        match self {
            Self::Nothing => false,
            Self::Unprotected => !is_protected(id),
            Self::Everything => true,
        }
    }
}

/// What applying would do, as the cluster is.
#[derive(Debug)]
pub struct Look {
    /// What is made or becomes another, in the order of the installation.
    pub changes: Vec<Change>,
    /// What was installed before and is not wanted any more, in the order in which it would go.
    pub leftovers: Vec<ObjectId>,
    /// The fields of others that would be written.
    pub conflicts: Vec<Conflict>,
    /// How many objects are as they are to be.
    pub unchanged: usize,
    parent: Option<Value>,
    /// What is known of the set, with the UIDs of what is there.
    known: Inventory,
    /// What the set's parent holds, as it stands in the cluster.
    written: Inventory,
}

impl Look {
    /// Whether the cluster is as it is to be, but for what is left over.
    pub fn is_as_wanted(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether the inventory is not what it would be at the end: something ended an installation before it was done.
    pub fn is_interrupted(&self) -> bool {
        self.known != self.written
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It was made.
    Created(ObjectId),
    /// It is another now.
    Updated(ObjectId),
    /// It is gone.
    Deleted(ObjectId),
    /// It is somebody else's now, and was left.
    Left(ObjectId),
}

/// Compares the cluster with what is wanted, and changes nothing.
///
/// # Errors
///
/// If the API server cannot be asked, or does not take an object; if the set is another tool's.
pub async fn look(client: &Client, objects: &[Value], conflicts: Conflicts) -> Result<Look, InstallError> {
    let api = Api::new(client.clone());
    let parent = api.get(&parent_id()).await?;
    let written = parent.as_ref().map(Inventory::read).transpose()?.unwrap_or_default();
    let mut look = Look {
        changes: Vec::new(),
        leftovers: Vec::new(),
        conflicts: Vec::new(),
        unchanged: 0,
        parent,
        known: written.clone(),
        written,
    };
    let mut comes = BTreeSet::new();
    for object in objects {
        let Some(id) = ObjectId::of(object) else { continue };
        let live = api.get(&id).await?;
        match &live {
            Some(live) => look.existing(&api, &id, object, live, conflicts).await?,
            // Nothing can be tried in a namespace that is yet to come.
            None if comes.contains(&id.namespace) => look.changes.push(changes::create(&id, &member(object))),
            None => {
                let tried = api.apply(&id, &member(object), Write::tried(conflicts)).await;
                tried.map_err(|refusal| refusal.into_error(&id))?;
                look.changes.push(changes::create(&id, &member(object)));
            }
        }
        if live.is_none() && id.kind == "Namespace" {
            comes.insert(id.name.clone());
        }
    }
    look.left_over(&api, objects).await?;
    Ok(look)
}

impl Look {
    async fn existing(
        &mut self,
        api: &Api,
        id: &ObjectId,
        object: &Value,
        live: &Value,
        conflicts: Conflicts,
    ) -> Result<(), InstallError> {
        if let Some(other) = set_of(live).filter(|set| *set != apply_set::id())
            && conflicts == Conflicts::Refuse
        {
            let manager = format!("the ApplySet `{other}`");
            self.conflicts.push(Conflict { id: id.clone(), manager, field: "the object".to_owned() });
        }
        let tried = match api.apply(id, &member(object), Write::tried(conflicts)).await {
            Ok(tried) => tried,
            Err(Refusal::Conflicts(found)) => {
                self.conflicts.extend(found);
                // What would be written all the same is what a person decides on.
                api.apply(id, &member(object), Write::tried(Conflicts::Take))
                    .await
                    .map_err(|refusal| refusal.into_error(id))?
            }
            Err(refusal) => return Err(refusal.into_error(id)),
        };
        match changes::update(id, live, &tried) {
            Some(change) => self.changes.push(change),
            None => {
                self.unchanged += 1;
                self.known.made(id.clone(), uid(live));
            }
        }
        Ok(())
    }

    /// What is in the inventory alone. What is not there, or somebody else's by now, is forgotten.
    async fn left_over(&mut self, api: &Api, objects: &[Value]) -> Result<(), InstallError> {
        let wanted: BTreeSet<ObjectId> = objects.iter().filter_map(ObjectId::of).collect();
        for id in self.written.without(&wanted) {
            match api.get(id).await? {
                Some(live) if self.written.holds(id, &live) => {
                    self.known.made(id.clone(), uid(&live));
                    self.leftovers.push(id.clone());
                }
                Some(_) | None => self.known.gone(id),
            }
        }
        Ok(())
    }
}

/// Makes the cluster as wanted, as far as `look` found it otherwise, and removes what is left over as far as `prune` says.
///
/// # Errors
///
/// If the API server does not do its part: what was done stays. Run it again.
pub async fn apply(
    client: &Client,
    objects: &[Value],
    look: Look,
    prune: Prune,
    conflicts: Conflicts,
    mut progress: impl FnMut(&Step),
) -> Result<(), InstallError> {
    let api = Api::new(client.clone());
    let version = look.parent.as_ref().and_then(|parent| parent["metadata"]["resourceVersion"].as_str());
    let mut set = Set { api: &api, inventory: look.known.clone(), version: version.map(str::to_owned) };
    let coming: Vec<&ObjectId> = look.changes.iter().map(|change| &change.id).collect();
    set.inventory = set.inventory.and_coming(coming);
    // The parent is in the namespace; without it, the namespace is made first.
    let mut announced = look.parent.is_some();
    if announced && set.inventory != look.written {
        set.write().await?;
    }
    for object in objects {
        let Some(id) = ObjectId::of(object) else { continue };
        let Some(change) = look.changes.iter().find(|change| change.id == id) else { continue };
        if !announced && id.kind != "Namespace" {
            set.write().await?;
            announced = true;
        }
        let made = api.apply(&id, &member(object), Write::meant(conflicts)).await;
        let made = made.map_err(|refusal| refusal.into_error(&id))?;
        set.inventory.made(id.clone(), uid(&made));
        progress(&match change.action {
            Action::Create => Step::Created(id),
            Action::Update | Action::Delete => Step::Updated(id),
        });
    }
    for id in look.leftovers.iter().filter(|id| prune.removes(id)) {
        let step = match api.delete(id, set.inventory.uid(id)).await? {
            Deletion::Done => Step::Deleted(id.clone()),
            Deletion::NotOurs => Step::Left(id.clone()),
        };
        set.inventory.gone(id);
        progress(&step);
    }
    set.close(&look).await
}

/// The set's parent, as it is written.
struct Set<'a> {
    api: &'a Api,
    inventory: Inventory,
    version: Option<String>,
}

impl Set<'_> {
    /// Others may have edited it by hand; it is ours all the same. Another installation is told by its version.
    async fn write(&mut self) -> Result<(), InstallError> {
        let parent = self.inventory.parent(self.version.as_deref());
        let written = self.api.apply(&parent_id(), &parent, Write::meant(Conflicts::Take)).await;
        let written = written.map_err(|refusal| match refusal {
            Refusal::Conflicts(_) | Refusal::Outdated => InstallError::Meanwhile,
            refusal @ Refusal::Failed(_) => refusal.into_error(&parent_id()),
        })?;
        self.version = written["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        Ok(())
    }

    /// What has gone is forgotten now that it has.
    async fn close(mut self, look: &Look) -> Result<(), InstallError> {
        let namespace_went = look.leftovers.iter().any(|id| id.kind == "Namespace" && self.inventory.uid(id).is_none());
        if namespace_went {
            // The parent goes with it.
            return Ok(());
        }
        if self.inventory.is_empty() {
            let live = self.api.get(&parent_id()).await?;
            if let Some(uid) = live.as_ref().and_then(uid) {
                self.api.delete(&parent_id(), Some(uid)).await?;
            }
            return Ok(());
        }
        if self.inventory != look.written || self.version.is_none() {
            self.write().await?;
        }
        Ok(())
    }
}
