"""What picture files hold. Pillow gets the part that makes the pixels; all else is read here, with distrust."""
