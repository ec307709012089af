//! The query of a request, read strictly.

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};

use super::{App, Refusal};

/// The parameters of a request, each at most once.
#[derive(Debug)]
pub(in crate::server) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Takes a query apart.
    ///
    /// # Errors
    ///
    /// When it does not decode, or a parameter is there twice.
    pub(in crate::server) fn of(query: Vec<(String, String)>) -> Result<Self, Refusal> {
        for (number, (name, _)) in query.iter().enumerate() {
            if query.iter().take(number).any(|(other, _)| other == name) {
                let name = name.escape_debug();
                return Err(Refusal::InvalidRequest(format!("give `{name}` only once")));
            }
        }
        Ok(Self(query))
    }

    pub(in crate::server) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Refuses parameters that would mean something in another view.
    pub(in crate::server) fn refuse(&self, names: &[&str], view: &str) -> Result<(), Refusal> {
        match names.iter().find(|name| self.get(name).is_some()) {
            None => Ok(()),
            Some(name) => Err(Refusal::InvalidRequest(format!(
                "`{name}` has no meaning with {view}"
            ))),
        }
    }

    /// Refuses everything but these parameters.
    pub(in crate::server) fn only(&self, names: &[&str]) -> Result<(), Refusal> {
        match self
            .0
            .iter()
            .find(|(name, _)| !names.contains(&name.as_str()))
        {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::InvalidRequest(format!(
                "there is no parameter `{}` here",
                name.escape_debug()
            ))),
        }
    }

    /// `true` or `false`; not given is `false`.
    pub(in crate::server) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Refusal::InvalidRequest(format!(
                "`{name}` is `true` or `false`"
            ))),
        }
    }

    /// A number.
    pub(in crate::server) fn number(
        &self,
        name: &str,
        most: usize,
    ) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
            Ok(_) | Err(_) => Err(Refusal::InvalidRequest(format!(
                "`{name}` is a number from 1 to {most}"
            ))),
        }
    }
}

impl FromRequestParts<App> for Parameters {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let Query(query) = Query::<Vec<(String, String)>>::from_request_parts(parts, app).await?;
        Self::of(query)
    }
}
