-- Written by `./cartwright fmt`. For psql, as the superuser, once databases and roles are there.
ALTER ROLE "identity_app" SET statement_timeout = '60s';
ALTER ROLE "identity_app" SET lock_timeout = '30s';
ALTER ROLE "identity_app" SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE "identity_relay" SET statement_timeout = '60s';
ALTER ROLE "identity_relay" SET lock_timeout = '30s';
ALTER ROLE "identity_relay" SET idle_in_transaction_session_timeout = '60s';
REVOKE ALL ON DATABASE "identity" FROM PUBLIC;
GRANT CONNECT ON DATABASE "identity" TO "identity_app", "identity_relay";
\connect identity
GRANT USAGE ON LANGUAGE plpgsql TO "identity_owner";
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
ALTER ROLE "cart_app" SET statement_timeout = '60s';
ALTER ROLE "cart_app" SET lock_timeout = '30s';
ALTER ROLE "cart_app" SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE "cart_relay" SET statement_timeout = '60s';
ALTER ROLE "cart_relay" SET lock_timeout = '30s';
ALTER ROLE "cart_relay" SET idle_in_transaction_session_timeout = '60s';
REVOKE ALL ON DATABASE "cart" FROM PUBLIC;
GRANT CONNECT ON DATABASE "cart" TO "cart_app", "cart_relay";
\connect cart
GRANT USAGE ON LANGUAGE plpgsql TO "cart_owner";
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
ALTER ROLE "checkout_app" SET statement_timeout = '60s';
ALTER ROLE "checkout_app" SET lock_timeout = '30s';
ALTER ROLE "checkout_app" SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE "checkout_relay" SET statement_timeout = '60s';
ALTER ROLE "checkout_relay" SET lock_timeout = '30s';
ALTER ROLE "checkout_relay" SET idle_in_transaction_session_timeout = '60s';
REVOKE ALL ON DATABASE "checkout" FROM PUBLIC;
GRANT CONNECT ON DATABASE "checkout" TO "checkout_app", "checkout_relay";
\connect checkout
GRANT USAGE ON LANGUAGE plpgsql TO "checkout_owner";
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
ALTER ROLE "payments_app" SET statement_timeout = '60s';
ALTER ROLE "payments_app" SET lock_timeout = '30s';
ALTER ROLE "payments_app" SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE "payments_relay" SET statement_timeout = '60s';
ALTER ROLE "payments_relay" SET lock_timeout = '30s';
ALTER ROLE "payments_relay" SET idle_in_transaction_session_timeout = '60s';
REVOKE ALL ON DATABASE "payments" FROM PUBLIC;
GRANT CONNECT ON DATABASE "payments" TO "payments_app", "payments_relay";
\connect payments
GRANT USAGE ON LANGUAGE plpgsql TO "payments_owner";
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
