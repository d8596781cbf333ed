//! The accounts that register: of signed-in students, and of visitors, whose account is found by address or created. An
//! existing account is never changed, and no answer to a visitor depends on whether there was one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use contracts::{
    ids,
    messages::{Registrant, SubmitRegistration},
    validation::normalise_email,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::runtime::{Delivery, Failure};

/// The account of a registrant.
#[derive(Clone, Debug)]
pub struct Account {
    /// `users.id`.
    pub id: Uuid,
    /// The mail address.
    pub email: String,
    /// The full name.
    pub name: String,
    /// BCP 47.
    pub locale: String,
    /// True where it is a student's and not suspended.
    pub may_register: bool,
}

/// The accounts of the deliveries' registrants: those that exist, and those that [`Registrants::save`] creates.
#[derive(Debug, Default)]
pub struct Registrants {
    by_id: HashMap<Uuid, Account>,
    by_email: HashMap<String, Uuid>,
    new: BTreeMap<String, NewAccount>,
}

#[derive(Clone, Debug)]
struct NewAccount {
    account: Account,
    phone: Option<String>,
    operation_id: Uuid,
}

impl Registrants {
    /// Looks up the existing accounts.
    ///
    /// # Errors
    /// The database's.
    pub async fn find(tx: &mut PgConnection, deliveries: &[Delivery<SubmitRegistration>]) -> Result<Self, Failure> {
        let (mut emails, mut student_ids) = (BTreeSet::new(), BTreeSet::new());
        for delivery in deliveries {
            match &delivery.command.registrant {
                Registrant::Visitor { email, .. } => drop(emails.insert(normalise_email(email))),
                Registrant::Student { student_id } => drop(student_ids.insert(*student_id)),
            }
        }
        let rows = sqlx::query_as!(
            Account,
            r#"
            SELECT u.id                                         AS "id!",
                   u.email::text                                AS "email!",
                   COALESCE(p.full_name, u.email::text)         AS "name!",
                   COALESCE(p.locale, 'en')                     AS "locale!",
                   (u.role = 'student' AND u.status <> 'suspended') AS "may_register!"
            FROM (
                SELECT found.*
                FROM UNNEST($1::text[]) AS asked (email)
                CROSS JOIN LATERAL (
                    SELECT id, email, role, status
                    FROM users
                    WHERE email::text = asked.email COLLATE "C" AND deleted_at IS NULL
                    OFFSET 0  -- by its own index for each, whatever the statistics say
                ) AS found
                UNION ALL
                SELECT found.*
                FROM UNNEST($2::uuid[]) AS asked (id)
                CROSS JOIN LATERAL (
                    SELECT id, email, role, status FROM users WHERE id = asked.id AND deleted_at IS NULL OFFSET 0
                ) AS found
            ) AS u
            LEFT JOIN user_profiles p ON p.user_id = u.id
            "#,
            &emails.into_iter().collect::<Vec<_>>(),
            &student_ids.into_iter().collect::<Vec<_>>(),
        )
        .fetch_all(tx)
        .await?;
        let by_email = rows.iter().map(|account| (normalise_email(&account.email), account.id)).collect();
        let by_id = rows.into_iter().map(|account| (account.id, account)).collect();
        Ok(Self { by_id, by_email, new: BTreeMap::new() })
    }

    /// Returns the account of a signed-in student.
    pub fn student(&self, student_id: Uuid) -> Option<&Account> {
        self.by_id.get(&student_id)
    }

    /// Returns the account of an address: an existing one, or one that is already planned.
    pub fn of_email(&self, email: &str) -> Option<&Account> {
        let email = normalise_email(email);
        match self.by_email.get(&email) {
            Some(id) => self.by_id.get(id),
            None => self.new.get(&email).map(|new| &new.account),
        }
    }

    /// Returns the account of an address; where there is none, plans one for [`Registrants::save`] to create.
    pub fn find_or_plan(&mut self, email: &str, full_name: &str, phone: Option<&str>, operation_id: Uuid) -> Account {
        if let Some(account) = self.of_email(email) {
            return account.clone();
        }
        let email = normalise_email(email);
        let account = Account {
            id: ids::new_id(),
            email: email.clone(),
            name: full_name.trim().to_owned(),
            locale: "en".to_owned(),
            may_register: true,
        };
        let new = NewAccount { account: account.clone(), phone: phone.map(str::to_owned), operation_id };
        self.new.insert(email, new);
        account
    }

    /// Creates the planned accounts, in the order of their addresses, so that two transactions never wait for each other.
    ///
    /// # Errors
    /// [`Failure::Race`] where another transaction created one of them meanwhile; else the database's.
    pub async fn save(&self, tx: &mut PgConnection) -> Result<(), Failure> {
        if self.new.is_empty() {
            return Ok(());
        }
        let new: Vec<&NewAccount> = self.new.values().collect();
        sqlx::query!(
            r#"
            WITH planned AS (
                SELECT *
                FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::text[])
                     AS n (id, email, phone, operation_id, profile_id, full_name)
            ), made AS (
                INSERT INTO users (id, email, phone, role, status, operation_id)
                SELECT id, email::citext, phone, 'student', 'invited', operation_id
                FROM planned
                ORDER BY email COLLATE "C"
                RETURNING id
            )
            INSERT INTO user_profiles (id, user_id, full_name)
            SELECT planned.profile_id, made.id, planned.full_name
            FROM made
            JOIN planned USING (id)
            "#,
            &new.iter().map(|n| n.account.id).collect::<Vec<_>>(),
            &new.iter().map(|n| n.account.email.clone()).collect::<Vec<_>>(),
            &new.iter().map(|n| n.phone.clone()).collect::<Vec<_>>() as &[Option<String>],
            &new.iter().map(|n| n.operation_id).collect::<Vec<_>>(),
            &new.iter().map(|_| ids::new_id()).collect::<Vec<_>>(),
            &new.iter().map(|n| n.account.name.clone()).collect::<Vec<_>>(),
        )
        .execute(tx)
        .await
        .map_err(Failure::race_on("users_email_key"))?;
        Ok(())
    }
}
