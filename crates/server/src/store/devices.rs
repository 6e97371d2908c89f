//! The devices of groups, as their leads know them.

use std::collections::BTreeMap;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::groups::{Device, Filter};
use super::{Store, StoreError, number_of};

impl Store {
    /// The devices of a group, the lead first.
    pub async fn devices(&self, group: &str) -> Result<Vec<Device>, StoreError> {
        self.devices_by(DEVICES, group).await
    }

    /// The same with the image that each was last heard to run: a lead that has just started has
    /// not heard its members yet.
    pub async fn devices_as_last_heard(&self, group: &str) -> Result<Vec<Device>, StoreError> {
        self.devices_by(DEVICES_AS_LAST_HEARD, group).await
    }

    async fn devices_by(&self, sql: &'static str, group: &str) -> Result<Vec<Device>, StoreError> {
        let query = sqlx::query(sql).bind(group);
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        rows.iter().map(device_of).collect()
    }

    /// The devices of such groups, the first of them by name; by the group's identity.
    pub async fn devices_of_first(
        &self,
        filter: &Filter,
        groups: i64,
    ) -> Result<BTreeMap<String, Vec<Device>>, StoreError> {
        let (such, texts) = filter.conditions(2);
        let sql = format!(
            "SELECT fleet_group, id, role, is_lead, number, image, is_linked FROM device \
            WHERE fleet_group IN (SELECT id FROM fleet_group WHERE name > ''{such} \
            ORDER BY name LIMIT $1) ORDER BY is_lead DESC, id"
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(groups);
        for text in &texts {
            query = query.bind(text);
        }
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        let mut devices: BTreeMap<String, Vec<Device>> = BTreeMap::new();
        for row in &rows {
            devices.entry(row.try_get("fleet_group")?).or_default().push(device_of(row)?);
        }
        Ok(devices)
    }
}

const DEVICES: &str = "SELECT id, role, is_lead, number, image, is_linked FROM device \
    WHERE fleet_group = $1 ORDER BY is_lead DESC, id";
const DEVICES_AS_LAST_HEARD: &str = "SELECT id, role, is_lead, number, ran AS image, is_linked \
    FROM device WHERE fleet_group = $1 ORDER BY is_lead DESC, id";

fn device_of(row: &AnyRow) -> Result<Device, StoreError> {
    Ok(Device {
        id: row.try_get("id")?,
        role: row.try_get("role")?,
        is_lead: row.try_get::<i64, _>("is_lead")? != 0,
        number: number_of(row, "number")?,
        image: row.try_get("image")?,
        is_linked: row.try_get::<i64, _>("is_linked")? != 0,
    })
}
