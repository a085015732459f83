// A first visit has no stored mode, and the theme reports that as an error.
document.documentElement.dataset.mode ||= "auto";
