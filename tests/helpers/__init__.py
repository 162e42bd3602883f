"""What several test files share: small models, fake runs, programs started in processes of their own."""
