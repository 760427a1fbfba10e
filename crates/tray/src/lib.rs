//! The tray as pure data (menu, icon state, tooltip) and its Linux adapter.
