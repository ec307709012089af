//! Requests from actor to actor, and who waits for whom.

use std::{collections::BTreeSet, time::Duration};

use bowline_store::ActorId;
use serde_json::Value;

use super::Runtime;
use crate::{
    actor::Command,
    error::RuntimeError,
    message::{Asking, MAX_CHAIN, MAX_REQUEST_WITHIN, Request},
};

/// Actors that handle nothing while they wait for another one.
#[derive(Debug, Default)]
pub(super) struct Waits {
    next: u64,
    /// Who waits, which request it is, for whom.
    edges: BTreeSet<(ActorId, u64, ActorId)>,
}

impl Waits {
    /// The way from one actor to another along those who wait.
    fn path(&self, from: &ActorId, to: &ActorId) -> Option<Vec<ActorId>> {
        let mut seen = BTreeSet::from([from.clone()]);
        let mut ways = vec![vec![from.clone()]];
        while let Some(way) = ways.pop() {
            let last = way.last()?;
            if last == to {
                return Some(way);
            }
            let first = (last.clone(), 0, ActorId::new("", "", ""));
            for (_, _, next) in self
                .edges
                .range(first..)
                .take_while(|(who, ..)| who == last)
            {
                if seen.insert(next.clone()) {
                    let mut longer = way.clone();
                    longer.push(next.clone());
                    ways.push(longer);
                }
            }
        }
        None
    }
}

/// A wait, for as long as it lasts.
struct Waiting<'a> {
    runtime: &'a Runtime,
    edge: (ActorId, u64, ActorId),
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.runtime.waits().edges.remove(&self.edge);
    }
}

impl Runtime {
    /// Asks an actor, and waits for its reply, at most for so long (an hour at most). What its
    /// handling changed is durable when this returns.
    ///
    /// # Errors
    ///
    /// What the handler failed with, `request_timeout`, `requests_full`, `unknown_actor_kind`.
    pub async fn request(
        &self,
        to: &ActorId,
        body: Value,
        within: Duration,
    ) -> Result<Value, RuntimeError> {
        let asking = Asking {
            chain: [].into(),
            blocks: false,
        };
        self.request_as(asking, to, body, within).await
    }

    pub(crate) async fn request_as(
        &self,
        asking: Asking,
        to: &ActorId,
        body: Value,
        within: Duration,
    ) -> Result<Value, RuntimeError> {
        let within = within.min(MAX_REQUEST_WITHIN);
        if let Some(at) = asking.chain.iter().position(|waits| waits == to) {
            return Err(cyclic(&asking.chain[at..], to));
        }
        if asking.chain.len() >= MAX_CHAIN {
            return Err(RuntimeError::RequestTooDeep);
        }
        let _waiting = match asking.chain.last().filter(|_| asking.blocks) {
            Some(from) => Some(self.wait_for(from, to)?),
            None => None,
        };
        let asked = self.ask(to, |reply| Command::Request {
            request: Request {
                chain: asking.chain.clone(),
                body: body.clone(),
                within,
            },
            reply,
        });
        let timeout = |_| RuntimeError::RequestTimeout {
            to: to.clone(),
            within,
        };
        tokio::time::timeout(within, asked).await.map_err(timeout)?
    }

    fn wait_for(&self, from: &ActorId, to: &ActorId) -> Result<Waiting<'_>, RuntimeError> {
        let mut waits = self.waits();
        if let Some(way) = waits.path(to, from) {
            return Err(cyclic(&way, to));
        }
        waits.next += 1;
        let edge = (from.clone(), waits.next, to.clone());
        waits.edges.insert(edge.clone());
        Ok(Waiting {
            runtime: self,
            edge,
        })
    }
}

fn cyclic(way: &[ActorId], to: &ActorId) -> RuntimeError {
    let names = way.iter().chain([to]).map(ToString::to_string);
    RuntimeError::RequestCyclic(names.collect::<Vec<_>>().join(" → "))
}
