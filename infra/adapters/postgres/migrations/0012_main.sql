-- Tokens of the API may expire; null: never.
alter table api_tokens add column expires_at timestamptz;
