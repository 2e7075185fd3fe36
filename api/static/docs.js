SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false, // a key does not outlive the page
  tryItOutEnabled: true,
  validatorUrl: null, // asks nobody outside
});
