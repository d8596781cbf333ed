//! Lists: typed filters, page size, order, and a cursor that goes on after the last row of the page before (keyset pages).

use axum::{extract::FromRequestParts, http::request::Parts};
use contracts::FieldError;
use serde::{Serialize, de::DeserializeOwned};
use url::form_urlencoded;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        ObjectBuilder, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};

use super::cursor::{self, CursorKey};
use crate::http::{ApiError, ApiResult};

/// Items a page at most.
const LIMIT_MAX: u16 = 100;
const LIMIT_DEFAULT: u16 = 25;

/// The filters of a list: a struct with `deny_unknown_fields`, each field optional. A value that a field does not take is
/// a 422 that names the field and what it takes; an unknown parameter is a 400.
pub trait Listing: DeserializeOwned + IntoParams + Send {
    /// The list's name, which keeps its cursors apart from those of other lists.
    const NAME: &'static str;
    /// The place of a row in the list's order.
    type Key: CursorKey + Send;
    /// The orders that the list can have.
    type Sort: Sort;
}

/// The orders of a list, the first being the default.
pub trait Sort: Copy + Send + Sync + 'static {
    /// Every order with its name in `sort=`.
    const ALL: &'static [(&'static str, Self)];
}

/// The only order: newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewestFirst;

/// By age, newest first by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Newest first.
    Newest,
    /// Oldest first.
    Oldest,
}

impl Sort for NewestFirst {
    const ALL: &'static [(&'static str, Self)] = &[("newest", NewestFirst)];
}

impl Sort for Age {
    const ALL: &'static [(&'static str, Self)] = &[("newest", Age::Newest), ("oldest", Age::Oldest)];
}

/// One page of a list, as asked for.
#[derive(Debug)]
pub struct List<F: Listing> {
    /// The rows to list.
    pub filter: F,
    /// Their order.
    pub sort: F::Sort,
    /// The last row of the page before; absent on the first page.
    pub after: Option<F::Key>,
    limit: u16,
    order: String,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, newest first unless `sort` names another order.
    pub items: Vec<T>,
    /// Send it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<F: Listing> List<F> {
    /// Returns the number of rows to read: one more than the page holds, which tells whether another page follows.
    pub fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Makes the page of the rows that were read; `key` gives the place of a row in this order.
    pub fn page<T>(&self, mut rows: Vec<T>, key: impl Fn(&T) -> F::Key) -> Page<T> {
        let limit = usize::from(self.limit);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| has_more);
        let next_cursor = last.map(|row| cursor::encode(&self.order, &key(row)));
        Page { items: rows, next_cursor }
    }

    fn parse(query: &str) -> ApiResult<Self> {
        let (mut limit, mut sent_cursor, mut sort) = (None, None, None);
        let mut filters = form_urlencoded::Serializer::new(String::new());
        let known: Vec<String> = F::into_params(|| None).into_iter().map(|parameter| parameter.name).collect();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "limit" => limit = Some(value),
                "cursor" => sent_cursor = Some(value),
                "sort" => sort = Some(value),
                name if known.iter().any(|known| known == name) => drop(filters.append_pair(name, &value)),
                name => {
                    let known = known.iter().map(String::as_str).chain(["limit", "cursor", "sort"]);
                    let known: Vec<_> = known.map(|name| format!("`{name}`")).collect();
                    let detail = format!("`{name}` is no parameter of this list; it has {}.", known.join(", "));
                    return Err(ApiError::invalid_request(detail));
                }
            }
        }
        let (sort_name, sort) = match sort {
            None => F::Sort::ALL[0],
            Some(name) => *F::Sort::ALL.iter().find(|(known, _)| *known == name).ok_or_else(|| {
                let known: Vec<_> = F::Sort::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
                let message = format!("must be one of {}", known.join(", "));
                ApiError::validation(vec![FieldError::new("sort", "unknown_value", message)])
            })?,
        };
        let order = format!("{}\0{sort_name}", F::NAME);
        let after = sent_cursor.map(|sent| cursor::decode(&order, &sent).ok_or_else(bad_cursor)).transpose()?;
        let limit = limit.map_or(Some(LIMIT_DEFAULT), |limit| limit.parse().ok());
        let limit = limit.filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit = limit.ok_or_else(|| ApiError::invalid_request(format!("`limit` must be 1 to {LIMIT_MAX}.")))?;
        Ok(Self { filter: read_filters(&filters.finish())?, sort, after, limit, order })
    }
}

fn read_filters<F: DeserializeOwned>(query: &str) -> ApiResult<F> {
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let field = error.path().to_string();
        let message = format!("has a value that it does not take: {}", error.into_inner());
        ApiError::validation(vec![FieldError::new(field, "unknown_value", message)])
    })
}

fn bad_cursor() -> ApiError {
    ApiError::invalid_request("`cursor` must be `next_cursor` of the page before, of the same list in the same order.")
}

impl<S: Send + Sync, F: Listing> FromRequestParts<S> for List<F> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// The list's filters, and `limit`, `cursor` and `sort` of every list.
impl<F: Listing> IntoParams for List<F> {
    fn into_params(parameter_in_provider: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut parameters = F::into_params(&parameter_in_provider);
        let integer = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(LIMIT_MAX));
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let names = F::Sort::ALL.iter().map(|(name, _)| *name);
        let query = |name: &str, about: &str| {
            ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).description(Some(about))
        };
        parameters.extend([
            query("limit", "Items a page: 1 to 100, 25 by default.").schema(Some(integer)).build(),
            query("cursor", "`next_cursor` of the page before.").schema(Some(text())).build(),
            query("sort", "The order; the first is the default.").schema(Some(text().enum_values(Some(names)))).build(),
        ]);
        parameters
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        Red,
        DarkBlue,
    }

    #[derive(Debug, Deserialize, IntoParams)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        #[param(value_type = Option<String>)]
        colour: Option<Colour>,
        owner_id: Option<Uuid>,
        #[serde(default)]
        unread: bool,
    }

    impl Listing for Filter {
        const NAME: &'static str = "things";
        type Key = Uuid;
        type Sort = Age;
    }

    fn parse(query: &str) -> ApiResult<List<Filter>> {
        List::parse(query)
    }

    #[test]
    fn filters_are_typed_and_a_value_that_one_does_not_take_is_named_with_those_it_takes() {
        let list = parse("colour=dark_blue&unread=true&sort=oldest&limit=7").expect("reads");
        assert!(matches!(list.filter, Filter { colour: Some(Colour::DarkBlue), owner_id: None, unread: true }));
        assert_eq!((list.sort, list.rows(), list.after), (Age::Oldest, 8, None));
        for (query, field, known) in [
            ("colour=green", "colour", "`dark_blue`"),
            ("colour=", "colour", "`red`"),
            ("owner_id=7", "owner_id", "UUID"),
            ("sort=size", "sort", "`oldest`"),
        ] {
            let error = parse(query).expect_err(query);
            let (problem, first) = (error.problem(), &error.problem().errors[0]);
            assert_eq!((problem.status, first.field.as_str()), (422, field), "{query}");
            assert!(first.message.contains(known), "{query}: {}", first.message);
        }
    }

    #[test]
    fn unknown_parameters_and_bad_pages_are_a_400() {
        for bad in ["color=red", "limit=0", "limit=101", "limit=many", "cursor=x", "colour=red&cursor="] {
            assert_eq!(parse(bad).expect_err(bad).problem().status, 400, "{bad}");
        }
    }

    #[test]
    fn the_row_too_many_makes_a_cursor_that_its_own_order_alone_reads() {
        let ids: Vec<_> = (0..3).map(Uuid::from_u128).collect();
        let page = parse("limit=2").expect("reads").page(ids.clone(), |id| *id);
        let cursor = page.next_cursor.expect("another page follows");
        assert_eq!(page.items.len(), 2);
        assert_eq!(parse(&format!("cursor={cursor}")).expect("its own").after, Some(ids[1]));
        assert!(parse(&format!("cursor={cursor}&sort=oldest")).is_err());
        assert_eq!(parse("limit=3").expect("reads").page(ids, |id| *id).next_cursor, None);
    }

    #[test]
    fn the_document_names_every_parameter() {
        let names: Vec<_> = List::<Filter>::into_params(|| None).into_iter().map(|parameter| parameter.name).collect();
        assert_eq!(names, ["colour", "owner_id", "unread", "limit", "cursor", "sort"]);
    }
}
