"""The pages of practice: /roleplay and /progress."""
