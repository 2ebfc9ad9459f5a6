// Light or dark, kept in a cookie so that the server draws the page so from the start; and signing out.
window.touchfoldTheme = function () {
  const dark = document.body.classList.contains("body--dark");
  document.cookie = "touchfold_theme=" + (dark ? "light" : "dark") + ";path=/;max-age=31536000;samesite=strict";
  window.Quasar.Dark.set(!dark);
};
// "/" goes to the search of customers, unless something is being typed.
window.addEventListener("keydown", function (event) {
  const typing = event.target.closest && event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const field = document.querySelector(".tf-search input");
  if (field) field.focus();
  else window.location.href = "/customers";
});
window.touchfoldSignOut = function () {
  fetch("/sign-out", { method: "POST", credentials: "same-origin" }).then(function () {
    window.location.href = "/sign-in";
  });
};
