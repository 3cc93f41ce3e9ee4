"""Payments, the attempts beneath them, and the operations asked of the provider."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, ForeignKeyConstraint, Index, Integer, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.database.tables import MOMENT, aggregate, optional, required, tenant_table
from services.payments.tables.metadata import METADATA

TENANT = tenant_table(METADATA)

PAYMENT = aggregate(
    METADATA,
    "payment",
    "id",
    *required(Uuid, "checkout_id", "order_id", "subject_id"),
    *required(BigInteger, "amount_minor"),
    *required(Text, "currency", "method", "capture"),
    *required(Text, "confirmation", default="server"),
    *required(Boolean, "challenge", default="false"),
    *optional(Text, "return_url"),
    *required(Text, "quote_hash", "state"),
    *optional(Text, "intent_id", "charge_id"),
    *required(BigInteger, "authorized_minor"),
    *required(BigInteger, "capturing_minor", default=text("0")),
    *required(Boolean, "capturing_final", default="true"),
    *required(BigInteger, "captured_minor"),
    *required(BigInteger, "refunding_minor", "refunded_minor", default=text("0")),
    *required(Integer, "attempt_count", "capture_count", default="0"),
    *optional(Text, "decline_code"),
    *optional(MOMENT, "expires_at"),
    *required(Text, "order_standing", default="awaited"),
    *required(Boolean, "requested_capture"),
    *optional(Text, "void_reason"),
    *optional(MOMENT, "order_asked_at"),
    *optional(Uuid, "operation_id"),
    *required(Integer, "operation_attempt", default="1"),
    *optional(MOMENT, "operation_at", "look_at"),
    *required(Integer, "look_count", default="0"),
    *required(MOMENT, "created_at"),
    CheckConstraint(
        "state IN ('created', 'authorizing', 'requires_action', 'authorized', 'capturing', 'captured', 'voiding', "
        "'voided', 'declined', 'expired', 'unknown')",
        name="payment_state",
    ),
    CheckConstraint("amount_minor > 0 OR (amount_minor = 0 AND state IN ('voided', 'declined'))", name="payment_amount"),
    CheckConstraint("char_length(currency) = 3 AND (currency <> 'XXX' OR amount_minor = 0)", name="payment_currency"),
    CheckConstraint("capture IN ('on-confirmation', 'on-shipment')", name="payment_capture"),
    CheckConstraint("confirmation IN ('server', 'client')", name="payment_confirmation"),
    CheckConstraint("order_standing IN ('awaited', 'confirmed', 'canceled')", name="payment_order_standing"),
    CheckConstraint(
        "0 <= captured_minor AND 0 <= capturing_minor AND captured_minor + capturing_minor <= authorized_minor "
        "AND authorized_minor <= amount_minor",
        name="payment_captured_within_authorized_within_amount",
    ),
    CheckConstraint(
        "0 <= refunding_minor AND 0 <= refunded_minor AND refunding_minor + refunded_minor <= captured_minor",
        name="payment_refunded_within_captured",
    ),
    CheckConstraint("authorized_minor > 0 OR state NOT IN ('authorized', 'capturing', 'captured')", name="payment_authorized"),
    CheckConstraint("capturing_minor = 0 OR state IN ('capturing', 'unknown')", name="payment_capturing"),
    CheckConstraint("captured_minor > 0 OR state <> 'captured'", name="payment_captured"),
    CheckConstraint("captured_minor = 0 OR state IN ('authorized', 'capturing', 'captured', 'unknown')", name="payment_taken"),
    CheckConstraint("decline_code IS NOT NULL OR state <> 'declined'", name="payment_declined"),
    CheckConstraint(
        "intent_id IS NOT NULL OR state IN ('created', 'authorizing', 'voided', 'declined', 'unknown')",
        name="payment_intent",
    ),
    # Who waits, waits for one named operation; should its row be lost, this says which to plan again.
    CheckConstraint(
        "(operation_id IS NOT NULL) = (state IN ('authorizing', 'capturing', 'voiding', 'unknown')) "
        "AND (operation_id IS NOT NULL) = (operation_at IS NOT NULL)",
        name="payment_operation",
    ),
    Index("payment_of_checkout", "tenant_id", "checkout_id"),
    Index("payment_of_order", "tenant_id", "order_id"),
    Index("payment_of_intent", "tenant_id", "intent_id", unique=True),
    Index("payment_by_intent", "intent_id", postgresql_where=text("intent_id IS NOT NULL")),
    Index("payment_of_subject", "tenant_id", "subject_id", "id"),
    Index("payment_of_time", "tenant_id", "created_at", "id"),
    Index("payment_of_charge", "tenant_id", "charge_id", postgresql_where=text("charge_id IS NOT NULL")),
    Index("payment_look_at", "look_at", postgresql_where=text("look_at IS NOT NULL")),
)

ATTEMPT = aggregate(
    METADATA,
    "attempt",
    "id",
    *required(Uuid, "payment_id"),
    *required(Integer, "number"),
    *required(Text, "method", "state"),
    *optional(Text, "decline_code", "charge_id"),
    *required(MOMENT, "created_at"),
    ForeignKeyConstraint(["tenant_id", "payment_id"], ["payment.tenant_id", "payment.id"], name="attempt_of_payment"),
    CheckConstraint("number >= 1", name="attempt_number"),
    CheckConstraint("state IN ('open', 'succeeded', 'declined', 'abandoned')", name="attempt_state"),
    CheckConstraint("(state = 'declined') = (decline_code IS NOT NULL)", name="attempt_declined"),
    Index("attempt_open", "tenant_id", "payment_id", unique=True, postgresql_where=text("state = 'open'")),
)

ORDER_PAYMENT = aggregate(
    METADATA,
    "order_payment",
    "order_id",
    *required(Uuid, "payment_id"),
    ForeignKeyConstraint(["tenant_id", "payment_id"], ["payment.tenant_id", "payment.id"], name="order_payment_of_payment"),
)

OPERATION = aggregate(
    METADATA,
    "operation",
    "id",
    *required(Uuid, "payment_id"),
    *optional(Uuid, "refund_id"),
    *required(Text, "kind"),
    *required(Integer, "ordinal", default="1"),
    *required(Integer, "attempt"),
    *required(Text, "idempotency_key"),
    *required(JSONB, "request"),
    *optional(BigInteger, "total_minor"),
    *required(Text, "state"),
    *required(Integer, "tries"),
    *required(Integer, "unknown_count", default="0"),
    *required(MOMENT, "first_send_at"),
    *optional(MOMENT, "due_at"),
    *optional(JSONB, "outcome", "resolution"),
    *optional(Text, "traceparent"),
    ForeignKeyConstraint(["tenant_id", "payment_id"], ["payment.tenant_id", "payment.id"], name="operation_of_payment"),
    ForeignKeyConstraint(["tenant_id", "refund_id"], ["refund.tenant_id", "refund.id"], name="operation_of_refund"),
    CheckConstraint("kind IN ('create', 'confirm', 'capture', 'cancel', 'refund')", name="operation_kind"),
    CheckConstraint("(kind = 'refund') = (refund_id IS NOT NULL)", name="operation_refund"),
    CheckConstraint("state IN ('sending', 'unknown', 'succeeded', 'declined', 'rejected')", name="operation_state"),
    CheckConstraint("(state IN ('sending', 'unknown')) = (due_at IS NOT NULL)", name="operation_due"),
    CheckConstraint("state IN ('sending', 'unknown') OR outcome IS NOT NULL", name="operation_outcome"),
    CheckConstraint("ordinal >= 1 AND attempt >= 1 AND tries >= 1 AND unknown_count >= 0", name="operation_tries"),
    CheckConstraint("idempotency_key = 'cartwright-' || id::text", name="operation_key"),
    CheckConstraint("(kind = 'capture') = (total_minor IS NOT NULL)", name="operation_total"),
    # The promise that money moves once begins here: a second call cannot even be planned while one is open.
    Index(
        "operation_open",
        "tenant_id",
        "payment_id",
        unique=True,
        postgresql_where=text("state IN ('sending', 'unknown') AND kind <> 'refund'"),
    ),
    Index(
        "operation_open_of_refund",
        "tenant_id",
        "refund_id",
        unique=True,
        postgresql_where=text("state IN ('sending', 'unknown') AND kind = 'refund'"),
    ),
    Index("operation_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index(
        "operation_unended",
        "tenant_id",
        "first_send_at",
        "id",
        postgresql_where=text("state = 'unknown' AND unknown_count >= 4"),
    ),
)
