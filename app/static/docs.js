// Swagger UI's own encoder of base64url throws (its issue 10613), and it makes the examples of members.
function base64url(text) {
  const octets = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(octets).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

const mended = {
  afterLoad(system) {
    system.fn.jsonSchema202012.sampleEncoderAPI("base64url", base64url);
  },
};

const dark = matchMedia("(prefers-color-scheme: dark)");

function follow() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

dark.addEventListener("change", follow);
follow();

// A token that is typed in stays in the memory of this page, and goes to this service only.
SwaggerUIBundle({
  url: "openapi-strict.json",
  dom_id: "#api",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  plugins: [mended],
  tryItOutEnabled: true,
  validatorUrl: null,
});
